local rows = {}
local function add(key)
  local kind, expires, digest = row(key)
  if kind then rows[#rows + 1] = hex(key) .. ' ' .. kind .. ' ' .. expires .. ' ' .. digest end
end
if ARGV[1] == 'scan' then
  local found = redis.call('SCAN', ARGV[2], 'COUNT', ARGV[3], 'MATCH', ARGV[4])
  rows[1] = 'cursor ' .. found[1]
  for _, key in ipairs(found[2]) do add(key) end
else
  for at = 2, #ARGV do add(bytes(ARGV[at])) end
end
return table.concat(rows, string.char(10))
