local mode, mark = ARGV[1], ARGV[2]
local journal, counts = mark .. ':journal', mark .. ':counts'
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local rows = {}
local function say(...) rows[#rows + 1] = table.concat({...}, ' ') end
local function told(key)
  local kind, expires, digest = row(key)
  return kind and kind .. ',' .. string.format('%.0f', expires) .. ',' .. digest or 'none'
end
local function over(known)
  local expires = tonumber(string.match(known, ',(-?%d+),') or -1)
  return expires >= 0 and expires <= now
end
local function alike(first, second) return string.gsub(first, ',.*,', ',') == string.gsub(second, ',.*,', ',') end
local function padded(whole, part)
  whole = string.gsub(whole, '^0+', '')
  if #whole > 30 then return '' end
  return string.rep('0', 30 - #whole) .. whole .. string.sub(part .. '000000000000', 1, 12)
end
local function moment(said)
  local year, month, day, hour, minute, second, rest =
  string.match(said, '^(%d%d%d%d)-(%d%d)-(%d%d)[T ](%d%d):(%d%d):(%d%d)(.*)$')
  if not year then return end
  local part = string.match(rest, '^%.(%d+)') or ''
  local sign, hours, minutes = string.match(rest, '([+-])(%d%d):?(%d%d)$')
  local zone = string.gsub(rest, '^%.%d+', '')
  if not sign and zone ~= 'Z' and zone ~= '' then return end
  local y, m = tonumber(year), tonumber(month)
  if m <= 2 then y, m = y - 1, m + 12 end
  local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400)
  days = days + math.floor((153 * (m - 3) + 2) / 5) + day - 1 - 719468
  local at = ((days * 24 + hour) * 60 + minute) * 60 + second
  if sign then at = at - tonumber(sign .. '1') * (hours * 60 + minutes) * 60 end
  if at < 0 then return end
  return (zone == '' and 'l' or 't') .. padded(string.format('%.0f', at), part)
end
local function version(key, field)
  if field == '-' or redis.call('TYPE', key).ok ~= 'hash' then return '-' end
  local said = redis.call('HGET', key, bytes(field)) or ''
  local whole, part = string.match(said, '^(%d+)%.?(%d*)$')
  local found = whole and 'n' .. padded(whole, part) or moment(said)
  return found and #found > 1 and found or '-'
end
local function note(key, how, known)
  redis.call('HSET', journal, key, how .. ' ' .. known)
  redis.call('HINCRBY', counts, how, 1)
end
local function commit(key, put, seen)
  local new, has = mark .. ':new:' .. key, told(key)
  if redis.call('HEXISTS', journal, key) == 0 then
    local staged = told(new)
    if over(put) then
      note(key, 'expired', put)
    elseif has ~= seen and not (has == 'none' and over(seen)) then
      note(key, 'left', has)
    elseif staged == 'none' then
      say('missing', hex(key))
    elseif not alike(staged, put) then
      say('other', hex(key))
    else
      local expires = string.match(put, ',(-?%d+),')
      if expires == '-1' then redis.call('PERSIST', new) else redis.call('PEXPIREAT', new, expires) end
      if has ~= 'none' then redis.call('RENAME', key, mark .. ':was:' .. key) end
      redis.call('RENAME', new, key)
      note(key, has == 'none' and 'added' or 'replaced', put)
    end
  end
  redis.call('UNLINK', new)
end
local function back(key, how, put)
  local was, has = mark .. ':was:' .. key, told(key)
  if how == 'added' or how == 'replaced' then
    if has == put or (has == 'none' and over(put)) then
      redis.call('UNLINK', key)
      if redis.call('EXISTS', was) == 1 then redis.call('RENAME', was, key) end
    else
      redis.call('UNLINK', was)
      return has ~= 'none'
    end
  end
end
local function settle(key, act)
  local how, known = string.match(redis.call('HGET', journal, key) or '', '^(%l+) (.*)$')
  if how and how ~= 'stayed' then
    local stays = act(key, how, known)
    redis.call('HINCRBY', counts, how, -1)
    if stays then how = 'stayed' note(key, how, known) else redis.call('HDEL', journal, key) end
  end
  if how == 'stayed' then say(how, hex(key)) end
  redis.call('UNLINK', mark .. ':new:' .. key)
end
local function each(from, step, act)
  for at = from, #ARGV, step do act(bytes(ARGV[at]), ARGV[at + 1], ARGV[at + 2]) end
end
local ways = {}
function ways.read()
  local count, others = ARGV[4], 0
  local all = redis.call('SCAN', ARGV[3], 'COUNT', count)
  local found = redis.call('SCAN', ARGV[3], 'COUNT', count, 'MATCH', ARGV[5])
  others = #all[2] - #found[2]
  for _, key in ipairs(found[2]) do
    if key == '' or string.sub(key, 1, 9) == 'recovery:' then
      others = others + 1
    else
      local known = told(key)
      if known ~= 'none' then say(hex(key), known, version(key, mark)) end
    end
  end
  table.insert(rows, 1, 'cursor ' .. all[1] .. ' ' .. others)
end
function ways.ask()
  each(3, 1, function(key)
    local known = told(key)
    if known ~= 'none' then say(hex(key), known, version(key, mark)) end
  end)
end
function ways.begin() redis.call('HSET', counts, 'begun', 1) redis.call('HINCRBY', counts, 'added', 0) end
function ways.pending()
  each(3, 1, function(key) if redis.call('HEXISTS', journal, key) == 0 then say(hex(key)) end end)
end
function ways.stage()
  local given, staged = {ARGV[3], ARGV[4], '', 0, 5000, 'REPLACE'}, {}
  each(6, 1, function(key)
    local new = mark .. ':new:' .. key
    if redis.call('COPY', key, new, 'REPLACE') == 1 then
      local left = redis.call('PTTL', new)
      if left < 0 or left > 600000 then redis.call('PEXPIRE', new, 600000) end
      staged[#staged + 1] = new
    end
  end)
  if #staged == 0 then return end
  if ARGV[5] ~= '-' then given[#given + 1] = 'AUTH' given[#given + 1] = bytes(ARGV[5]) end
  given[#given + 1] = 'KEYS'
  for _, new in ipairs(staged) do given[#given + 1] = new end
  local said = redis.pcall('MIGRATE', unpack(given))
  if said.err then say('failed', said.err) end
end
function ways.commit() each(3, 3, commit) end
function ways.back() each(3, 1, function(key) settle(key, back) end) end
function ways.forget()
  each(3, 1, function(key) settle(key, function() redis.call('UNLINK', mark .. ':was:' .. key) end) end)
end
function ways.over()
  for _, how in ipairs({'added', 'replaced', 'left', 'expired'}) do
    if tonumber(redis.call('HGET', counts, how) or 0) ~= 0 then return say('open', how) end
  end
  redis.call('UNLINK', journal, counts)
end
function ways.counts()
  local found = redis.call('HGETALL', counts)
  for at = 1, #found, 2 do say(found[at], found[at + 1]) end
end
function ways.check()
  each(3, 2, function(key, put)
    local how = string.match(redis.call('HGET', journal, key) or 'undecided', '^%l+')
    if how == 'added' or how == 'replaced' then
      local has = told(key)
      how = has == put and 'there' or has ~= 'none' and 'written' or over(put) and 'expired' or 'ended'
    end
    say(how)
  end)
end
ways[mode]()
return table.concat(rows, string.char(10))
