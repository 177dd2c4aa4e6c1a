local rows = {}
local function add(key, name)
  local kind, expires, digest = row(key)
  if kind then rows[#rows + 1] = (name or hex(key)) .. ' ' .. kind .. ' ' .. expires .. ' ' .. digest end
end
local function drawn(key) rows[#rows + 1] = hex(key) .. ' - -1 -' end
if ARGV[1] ~= 'read' then
  local found = redis.call('SCAN', ARGV[2], 'COUNT', ARGV[3], 'MATCH', ARGV[4])
  rows[1] = 'cursor ' .. found[1]
  for _, key in ipairs(found[2]) do (ARGV[1] == 'scan' and add or drawn)(key) end
else
  for at = 2, #ARGV do add(bytes(ARGV[at]), ARGV[at]) end
end
return table.concat(rows, string.char(10))
