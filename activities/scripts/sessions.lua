local rows, digits = {}, {}
for byte = 0, 255 do digits[string.char(byte)] = string.format('%02x', byte) end
local function whole(parts)
  for at, part in ipairs(parts) do parts[at] = #part .. ':' .. part end
  return table.concat(parts)
end
local function sorted(parts) table.sort(parts) return parts end
local function fields(all)
  local parts = {}
  for at = 1, #all, 2 do parts[#parts + 1] = whole({all[at], all[at + 1]}) end
  return sorted(parts)
end
local function flat(value)
  if type(value) ~= 'table' then return tostring(value) end
  local parts = {}
  for at, part in ipairs(value) do parts[at] = flat(part) end
  return whole(parts)
end
local sizes = {string = 'STRLEN', hash = 'HLEN', set = 'SCARD', list = 'LLEN', zset = 'ZCARD', stream = 'XLEN'}
local function content(key, kind)
  local size = redis.call(sizes[kind], key)
  if size > (kind == 'string' and 1048576 or 10000) then return 'so large: ' .. size end
  if kind == 'string' then return redis.call('GET', key) end
  if kind == 'hash' then return whole(fields(redis.call('HGETALL', key))) end
  if kind == 'set' then return whole(sorted(redis.call('SMEMBERS', key))) end
  if kind == 'list' then return whole(redis.call('LRANGE', key, 0, -1)) end
  if kind == 'zset' then return whole(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')) end
  return flat(redis.call('XRANGE', key, '-', '+'))
end
local function add(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return end
  local digest = sizes[kind] and string.sub(redis.sha1hex(content(key, kind)), 1, 20) or '-'
  rows[#rows + 1] = string.gsub(key, '.', digits) .. ' ' .. kind .. ' ' .. redis.call('PEXPIRETIME', key) .. ' ' .. digest
end
if ARGV[1] == 'scan' then
  local found = redis.call('SCAN', ARGV[2], 'COUNT', ARGV[3], 'MATCH', ARGV[4])
  rows[1] = 'cursor ' .. found[1]
  for _, key in ipairs(found[2]) do add(key) end
else
  for at = 2, #ARGV do
    add((string.gsub(ARGV[at], '%x%x', function(pair) return string.char(tonumber(pair, 16)) end)))
  end
end
return table.concat(rows, string.char(10))
