local rows, size = {}, 0
local function add(key)
  local kind, expires, digest = row(key)
  if kind then rows[#rows + 1] = hex(key) .. ' ' .. kind .. ' ' .. expires .. ' ' .. digest end
end
local function drawn(key) rows[#rows + 1] = hex(key) .. ' - -1 -' end
if ARGV[1] ~= 'read' then
  local found = redis.call('SCAN', ARGV[2], 'COUNT', ARGV[3], 'MATCH', ARGV[4])
  rows[1] = 'cursor ' .. found[1]
  for _, key in ipairs(found[2]) do (ARGV[1] == 'scan' and add or drawn)(key) end
else
  for at = 3, #ARGV do
    local kind, expires, digest, more = row(ARGV[at])
    rows[#rows + 1] = kind and kind .. ' ' .. expires .. ' ' .. digest or 'none'
    size = size + (more or 0)
    if size > tonumber(ARGV[2]) then break end
  end
  table.insert(rows, 1, 'read ' .. #rows)
end
return table.concat(rows, string.char(10))
