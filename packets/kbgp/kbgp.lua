-- Wireshark dissector of KBGP, version 1 (packets/kbgp.md): what border gateways say to each other, inside TLS 1.3.
--
--   tshark -X lua_script:packets/kbgp/kbgp.lua -o tls.keylog_file:runs/latest/logs/tls-keys.log \
--          -r runs/latest/capture.pcapng -Y kbgp
--
-- A run that captures keeps its speakers' TLS keys there.  kbgp.malformed says what is wrong with a body.

if DissectorTable.get("tls.port"):get_dissector(55833) then return end -- installed, and named on the command line too

local PORT, HEADER, MOST = 55833, 12, 1050624 + 12
local DEEPEST = 8

local TYPES = {
  [1] = "OPEN", [2] = "UPDATE", [3] = "NOTIFICATION", [4] = "KEEPALIVE", [5] = "END_OF_RIB", [6] = "ANNOUNCE",
  [7] = "REQUEST", [8] = "REPLY",
}
local CODES = { [1] = "header", [2] = "OPEN", [3] = "UPDATE", [4] = "hold timer", [5] = "state", [6] = "cease", [7] = "relay" }
local ANSWERS = {
  [0] = "ANSWERED", [1] = "UNREACHABLE", [2] = "HOP_LIMIT", [3] = "TIMEOUT", [4] = "OVERLOADED", [5] = "ABSENT",
  [6] = "REFUSED", [7] = "CUT",
}

local kbgp = Proto("kbgp", "Knowledge border gateway protocol (DA-ITN)")

local f = {
  version = ProtoField.uint8("kbgp.version", "Version"),
  type = ProtoField.uint8("kbgp.type", "Type", base.DEC, TYPES),
  length = ProtoField.uint32("kbgp.length", "Length"),
  body = ProtoField.bytes("kbgp.body", "Body"),
  malformed = ProtoField.string("kbgp.malformed", "Malformed"),
}
-- keys of a body that have a field of their own; all others are shown as text
local KEYS = {
  kas = ProtoField.uint8("kbgp.kas", "K-AS"),
  gateway = ProtoField.string("kbgp.gateway", "Gateway"),
  link = ProtoField.string("kbgp.link", "Link"),
  hold_ms = ProtoField.uint32("kbgp.hold_ms", "Hold time (ms)"),
  restart_s = ProtoField.uint16("kbgp.restart_s", "Restart time (s)"),
  restarting = ProtoField.bool("kbgp.restarting", "Restarting"),
  id = ProtoField.uint64("kbgp.id", "Id"),
  to_kas = ProtoField.uint8("kbgp.to_kas", "To K-AS"),
  trail = ProtoField.string("kbgp.trail", "Trail"),
  left_ms = ProtoField.uint32("kbgp.left_ms", "Time left (ms)"),
  object_id = ProtoField.uint64("kbgp.object_id", "Object id", base.HEX),
  visit = ProtoField.uint16("kbgp.visit", "Visit"),
  code = ProtoField.uint8("kbgp.code", "Code"),
  reason = ProtoField.string("kbgp.reason", "Reason"),
  path = ProtoField.string("kbgp.path", "Path"),
  withdrawn = ProtoField.string("kbgp.withdrawn", "Withdrawn"),
}
for _, field in pairs(KEYS) do f[#f + 1] = field end
local all = {}
for _, field in pairs(f) do all[#all + 1] = field end
kbgp.fields = all

-- msgpack -----------------------------------------------------------------------------------------------------------

local read

local function part(tvb, at, size)
  if at + size > tvb:len() then error("it ends in the middle", 0) end
  return tvb(at, size)
end

local function several(tvb, at, count, deep, keyed)
  if deep > DEEPEST then error("nested too deeply", 0) end
  local found = { keyed = keyed }
  for i = 1, count do
    local key
    if keyed then key, at = read(tvb, at, deep + 1) end
    local from, value = at, nil
    value, at = read(tvb, at, deep + 1)
    found[i] = { key = key, value = value, at = from, size = at - from }
  end
  return found, at
end

local function bytes(tvb, at, size, text)
  local range = size > 0 and part(tvb, at, size) or nil
  if text then return range and range:string() or "", at + size end
  return { raw = true, size = size }, at + size
end

-- Read one item; returns its value and where the next begins.
function read(tvb, at, deep)
  local first = part(tvb, at, 1):uint()
  local function number(size) return part(tvb, at + 1, size):uint() end
  if first < 0x80 then return first, at + 1 end
  if first < 0x90 then return several(tvb, at + 1, first - 0x80, deep, true) end
  if first < 0xa0 then return several(tvb, at + 1, first - 0x90, deep, false) end
  if first < 0xc0 then return bytes(tvb, at + 1, first - 0xa0, true) end
  if first == 0xc0 then return "none", at + 1 end
  if first == 0xc2 or first == 0xc3 then return first == 0xc3, at + 1 end
  if first >= 0xe0 then return first - 256, at + 1 end
  if first == 0xc4 then return bytes(tvb, at + 2, number(1), false) end
  if first == 0xc5 then return bytes(tvb, at + 3, number(2), false) end
  if first == 0xc6 then return bytes(tvb, at + 5, number(4), false) end
  if first == 0xca then return part(tvb, at + 1, 4):float(), at + 5 end
  if first == 0xcb then return part(tvb, at + 1, 8):float(), at + 9 end
  if first == 0xcc then return number(1), at + 2 end
  if first == 0xcd then return number(2), at + 3 end
  if first == 0xce then return number(4), at + 5 end
  if first == 0xcf then return part(tvb, at + 1, 8):uint64(), at + 9 end
  if first == 0xd9 then return bytes(tvb, at + 2, number(1), true) end
  if first == 0xda then return bytes(tvb, at + 3, number(2), true) end
  if first == 0xdc then return several(tvb, at + 3, number(2), deep, false) end
  if first == 0xde then return several(tvb, at + 3, number(2), deep, true) end
  error(string.format("0x%02x begins no item that KBGP has", first), 0)
end

local function is_list(value) return type(value) == "table" and not value.raw and not value.keyed end

local function words(list)
  local found = {}
  for i, item in ipairs(list) do found[i] = type(item.value) == "table" and "..." or tostring(item.value) end
  return table.concat(found, ", ")
end

local function flat(value)
  if not is_list(value) then return false end
  for _, item in ipairs(value) do
    if type(item.value) == "table" then return false end
  end
  return true
end

-- Show an item; a known key becomes its field, so that it can be filtered by.
local function show(tree, tvb, item)
  local name, value = tostring(item.key or ""), item.value
  local range, field = tvb(item.at, item.size), KEYS[name]
  if field and type(value) ~= "table" then
    tree:add(field, range, (name == "id" or name == "object_id") and type(value) == "number" and UInt64(value) or value)
  elseif field and flat(value) then
    tree:add(field, range, words(value))
  elseif type(value) == "table" and not value.raw then
    local branch = tree:add(range, name ~= "" and name or "item")
    if flat(value) then branch:append_text(": " .. words(value)) end
    if not flat(value) then
      for _, child in ipairs(value) do show(branch, tvb, child) end
    end
  else
    local text = type(value) == "table" and string.format("%d bytes", value.size) or tostring(value)
    tree:add(range, (name ~= "" and name .. ": " or "") .. text)
  end
end

-- What the line in the list of packets says.
local function summary(kind, body)
  local by = {}
  for _, item in ipairs(body) do by[tostring(item.key)] = item.value end
  if kind == 1 then return string.format(" of %s over %s", by.gateway or "?", by.link or "?") end
  if kind == 2 then return string.format(", %d told, %d gone", by.advertised and #by.advertised or 0, by.withdrawn and #by.withdrawn or 0) end
  if kind == 3 then return string.format(" %s: %s", CODES[by.code] or "?", by.reason or "") end
  if kind == 6 or kind == 7 then return string.format(" to K-AS %s by %s", tostring(by.to_kas), by.trail and words(by.trail) or "?") end
  if kind == 8 then return " " .. (ANSWERS[by.code] or "?") end
  return ""
end

local function dissect(tvb, pinfo, tree)
  local kind = tvb(5, 1):uint()
  local branch = tree:add(kbgp, tvb(), "KBGP " .. (TYPES[kind] or "unassigned"))
  branch:add(f.version, tvb(4, 1))
  branch:add(f.type, tvb(5, 1))
  branch:add(f.length, tvb(8, 4))
  local more = ""
  if tvb:len() > HEADER then
    local below = branch:add(f.body, tvb(HEADER))
    local ok, found, last = pcall(read, tvb, HEADER, 1)
    if ok and (type(found) ~= "table" or not found.keyed) then ok, found = false, "no map" end
    if ok and last ~= tvb:len() then ok, found = false, "more follows its body" end
    if ok then
      for _, item in ipairs(found) do show(below, tvb, item) end
      more = summary(kind, found)
    else
      branch:add(f.malformed, tvb(HEADER), tostring(found))
      more = ", malformed"
    end
  end
  branch:append_text(more)
  pinfo.cols.protocol = "KBGP"
  local said = tostring(pinfo.cols.info)
  pinfo.cols.info = (said:find("^KBGP") and said .. "; " or "KBGP ") .. (TYPES[kind] or "unassigned") .. more
  return tvb:len()
end

local function length(tvb, _, at)
  if tvb(at, 4):string() ~= "KBGP" then return tvb:len() - at end
  return math.max(HEADER, math.min(tvb(at + 8, 4):uint(), MOST))
end

function kbgp.dissector(tvb, pinfo, tree)
  if tvb:len() >= 4 and tvb(0, 4):string() ~= "KBGP" then return 0 end
  pinfo.cols.info = ""
  dissect_tcp_pdus(tvb, tree, HEADER, length, dissect)
  return tvb:len()
end

DissectorTable.get("tcp.port"):add(PORT, Dissector.get("tls"))
DissectorTable.get("tls.port"):add(PORT, kbgp)
