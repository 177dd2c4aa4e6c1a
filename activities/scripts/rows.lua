local function known(find)
  return setmetatable({}, {__index = function(all, one)
    local found = find(one)
    all[one] = found
    return found
  end})
end
local digits = known(function(one) return string.format('%02x', string.byte(one)) end)
local chars = known(function(pair) return string.char(tonumber(pair, 16)) end)
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
  if size > (kind == 'string' and 1048576 or 10000) then return 'so large: ' .. size, true end
  if kind == 'string' then return redis.call('GET', key) end
  if kind == 'hash' then return whole(fields(redis.call('HGETALL', key))) end
  if kind == 'set' then return whole(sorted(redis.call('SMEMBERS', key))) end
  if kind == 'list' then return whole(redis.call('LRANGE', key, 0, -1)) end
  if kind == 'zset' then return whole(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')) end
  return flat(redis.call('XRANGE', key, '-', '+'))
end
local function hex(text) return (string.gsub(text, '.', digits)) end
local function bytes(text) return (string.gsub(text, '%x%x', chars)) end
local function row(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return end
  local digest, size = '-', 0
  if sizes[kind] then
    local text, large = content(key, kind)
    digest, size = string.sub(redis.sha1hex(text), 1, 20), #text
    if large then digest = '~' .. string.sub(digest, 2) end
  end
  return kind, redis.call('PEXPIRETIME', key), digest, size
end
