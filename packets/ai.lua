-- Wireshark dissector of the AI packet, version 2.  The layout is the table in packets/README.md.
--
--   tshark -X lua_script:packets/ai.lua -r capture.pcapng -Y 'ai.flags.launch == 1' \
--          -T fields -e frame.time_relative -e ip.src -e ip.dst -e ai.object_id -e ai.visit
--
-- ai.refused holds the word with which every receiver refuses a broken packet.  A frame that the capture cut short
-- (snaplen) is judged only by what can be seen of it.  The frame that completes an object shows the whole of it
-- (ai.reassembled.*).  The statistics tap "AI journey" tells where objects went: Statistics menu, or
--
--   tshark -X lua_script:packets/ai.lua -o ai.journey:TRUE -q -r capture.pcapng

if DissectorTable.get("udp.port"):get_dissector(55831) then return end -- installed, and named on the command line too

local PORT, VERSION, FIXED, SKIPPABLE, SCALE = 55831, 2, 64, 0x8000, 10000
local LAUNCH, REPLY, COMPLETE, REPEATED, ENCRYPTED = 0x0001, 0x0004, 0x0008, 0x0010, 0x0080
local SEALED = 0x0600 -- one-time or keyed: only its receiver can check the payload checksum of such a shard

local TYPES = {
  [1] = "MODEL_SHARD", [2] = "DATA_SHARD", [3] = "QUERY", [4] = "RESPONSE", [5] = "TELEMETRY",
  [6] = "PROBE", [7] = "ACK", [8] = "ANNOUNCE", [9] = "ERROR",
}
local CLASSES = { [0] = "BULK", [1] = "CONTROL", [2] = "QUERY" }
local ERRORS = {
  [1] = "MALFORMED", [2] = "VERSION", [3] = "TOO_LARGE", [4] = "BUSY", [5] = "DIGEST",
  [6] = "UNKNOWN_TRANSFER", [7] = "NO_ROUTE", [8] = "REFUSED", [9] = "EXPIRED",
  [10] = "UNAUTHENTICATED",
}
local OPTIONS = {
  [0x0001] = "Requirements", [0x0002] = "Digest", [0x0003] = "Acknowledgement", [0x0004] = "Error",
  [0x0005] = "Mandate", [0x0006] = "Key share", [0x0007] = "Sent at", [0x0008] = "Blocks",
  [0xFFFF] = "Authentication",
}
local DIGESTS = { [1] = "SHA256", [2] = "BLAKE2B_256", [3] = "SHA256_TREE" }
local AUTHS = { [1] = "KEYED_BLAKE2B", [2] = "ED25519" }
local TAG_BYTES = { [1] = { 8, 32 }, [2] = { 64, 64 } }
local FLAGS = {
  { "launch", "Launch", 0x0001 }, { "last", "Last shard", 0x0002 }, { "reply", "Reply", 0x0004 },
  { "complete", "Complete", 0x0008 }, { "repeated", "Repeated", 0x0010 }, { "autonomous", "Autonomous", 0x0020 },
  { "end_to_end", "End-to-end route", 0x0040 }, { "encrypted", "Encrypted", 0x0080 },
  { "handover", "Hand-over", 0x0100 }, { "one_time", "Sealed by a one-time word", 0x0200 },
  { "keyed", "Sealed by a MAC", 0x0400 }, { "again", "Again", 0x0800 },
}

local ai = Proto("ai", "AI packet (DA-ITN)")
ai.prefs.check_payload = Pref.bool("Check payload checksums", true, "Compute the CRC-32 of every payload")
ai.prefs.reassemble = Pref.bool("Reassemble objects", true, "Put shards together where the capture has all of them")
ai.prefs.reassemble_mib = Pref.uint("Reassemble up to (MiB)", 64, "What is over this, all objects together, stays in pieces")
ai.prefs.journey = Pref.bool("Tell journeys (tshark)", false, "Print where objects went when tshark has read all")

local f = {
  version = ProtoField.uint8("ai.version", "Version", base.DEC, nil, 0xF0),
  class = ProtoField.uint8("ai.class", "Traffic class", base.DEC, CLASSES, 0x0F),
  type = ProtoField.uint8("ai.type", "Type", base.DEC, TYPES),
  flags = ProtoField.uint16("ai.flags", "Flags", base.HEX),
  header_length = ProtoField.uint16("ai.header_length", "Header length"),
  payload_length = ProtoField.uint16("ai.payload_length", "Payload length"),
  object_id = ProtoField.uint64("ai.object_id", "Object id", base.HEX),
  label = ProtoField.uint32("ai.label", "Label", base.HEX),
  label_address = ProtoField.ipv4("ai.label_address", "Label as address"),
  home_kas = ProtoField.uint8("ai.home_kas", "Home K-AS"),
  owner = ProtoField.ipv4("ai.owner", "Owner"),
  transfer_id = ProtoField.uint32("ai.transfer_id", "Transfer id", base.HEX),
  shard_index = ProtoField.uint32("ai.shard_index", "Shard index"),
  shard_count = ProtoField.uint32("ai.shard_count", "Shard count"),
  offset = ProtoField.uint64("ai.offset", "Offset"),
  total_length = ProtoField.uint64("ai.total_length", "Total length"),
  visit = ProtoField.uint16("ai.visit", "Visit"),
  visit_limit = ProtoField.uint16("ai.visit_limit", "Visit limit"),
  timestamp_us = ProtoField.uint32("ai.timestamp_us", "Timestamp (us)"),
  payload_checksum = ProtoField.uint32("ai.payload_checksum", "Payload checksum", base.HEX),
  header_checksum = ProtoField.uint32("ai.header_checksum", "Header checksum", base.HEX),
  payload = ProtoField.bytes("ai.payload", "Payload"),
  refused = ProtoField.string("ai.refused", "Refused"),
  cut = ProtoField.bool("ai.cut", "Cut by the capture"),
  option_type = ProtoField.uint16("ai.option.type", "Type", base.HEX, OPTIONS),
  option_length = ProtoField.uint16("ai.option.length", "Length"),
  option_value = ProtoField.bytes("ai.option.value", "Value"),
  req_task = ProtoField.uint32("ai.req.task_class", "Task class", base.HEX),
  req_broad = ProtoField.uint16("ai.req.broad_accuracy", "Broad accuracy (1/10000)"),
  req_expert = ProtoField.uint16("ai.req.expert_accuracy", "Expert accuracy (1/10000)"),
  req_trust = ProtoField.uint16("ai.req.trust_floor", "Trust floor (1/10000)"),
  req_group = ProtoField.uint16("ai.req.expert_group", "Expert group"),
  req_deadline = ProtoField.uint32("ai.req.deadline_ms", "Deadline (ms)"),
  digest_algorithm = ProtoField.uint8("ai.digest.algorithm", "Digest algorithm", base.DEC, DIGESTS),
  digest_value = ProtoField.bytes("ai.digest.value", "Digest"),
  ack_base = ProtoField.uint32("ai.ack.base", "All shards below"),
  ack_echo = ProtoField.uint32("ai.ack.echo_us", "Echoed timestamp (us)"),
  ack_delay = ProtoField.uint32("ai.ack.delay_us", "Held back (us)"),
  ack_window = ProtoField.uint32("ai.ack.window", "Window (shards)"),
  ack_bitmap = ProtoField.bytes("ai.ack.bitmap", "Bitmap"),
  ack_first = ProtoField.uint32("ai.ack.first", "First shard of the bitmap"),
  error = ProtoField.uint16("ai.error", "Error code", base.DEC, ERRORS),
  mandate_issued = ProtoField.uint64("ai.mandate.issued_ms", "Mandate issued (ms)"),
  mandate_expires = ProtoField.uint64("ai.mandate.expires_ms", "Mandate expires (ms)"),
  mandate_digest = ProtoField.bytes("ai.mandate.digest", "Original digest"),
  mandate_signature = ProtoField.bytes("ai.mandate.signature", "Owner's signature"),
  key_share = ProtoField.bytes("ai.key_share", "Key share"),
  sent_at = ProtoField.uint64("ai.sent_at_ms", "Sent at (ms)"),
  sent_at_time = ProtoField.absolute_time("ai.sent_at", "Sent at", base.UTC),
  blocks = ProtoField.bytes("ai.blocks", "Hashes of the blocks"),
  mandate_issued_time = ProtoField.absolute_time("ai.mandate.issued", "Mandate issued", base.UTC),
  mandate_expires_time = ProtoField.absolute_time("ai.mandate.expires", "Mandate expires", base.UTC),
  auth_algorithm = ProtoField.uint8("ai.auth.algorithm", "Authentication algorithm", base.DEC, AUTHS),
  auth_reserved = ProtoField.uint8("ai.auth.reserved", "Reserved"),
  auth_key = ProtoField.uint16("ai.auth.key_id", "Key id"),
  auth_tag = ProtoField.bytes("ai.auth.tag", "Tag"),
}
f.reassembled_in = ProtoField.framenum("ai.reassembled.in", "Object complete in frame", base.NONE)
f.reassembled_first = ProtoField.framenum("ai.reassembled.first", "First shard in frame", base.NONE)
f.reassembled_launch = ProtoField.framenum("ai.reassembled.launch", "Launched in frame", base.NONE)
f.reassembled_count = ProtoField.uint32("ai.reassembled.count", "Shards")
f.reassembled_repeated = ProtoField.uint32("ai.reassembled.repeated", "Shards seen again")
f.reassembled_length = ProtoField.uint64("ai.reassembled.length", "Length")
f.reassembled_digest = ProtoField.bytes("ai.reassembled.digest", "Digest announced by the launch")
f.reassembled_tensors = ProtoField.string("ai.reassembled.tensors", "safetensors header")
f.reassembled_data = ProtoField.bytes("ai.reassembled.data", "Object")
for _, flag in ipairs(FLAGS) do
  f["flag_" .. flag[1]] = ProtoField.bool("ai.flags." .. flag[1], flag[2], 16, nil, flag[3])
end
local all = {}
for _, field in pairs(f) do all[#all + 1] = field end
ai.fields = all

local group, severity = expert.group, expert.severity
local e_malformed = ProtoExpert.new("ai.malformed", "Malformed AI packet", group.MALFORMED, severity.ERROR)
local e_checksum = ProtoExpert.new("ai.checksum_bad", "Wrong checksum", group.CHECKSUM, severity.ERROR)
local e_error = ProtoExpert.new("ai.error_packet", "Refused by its receiver", group.RESPONSE_CODE, severity.WARN)
local e_repeated = ProtoExpert.new("ai.repeated", "Retransmission", group.SEQUENCE, severity.NOTE)
ai.experts = { e_malformed, e_checksum, e_error, e_repeated }

-- CRC-32 (IEEE 802.3), four bytes a step: Lua pays for every call.
local band, bxor, rshift, tobit = bit.band, bit.bxor, bit.rshift, bit.tobit
local T0, T1, T2, T3 = {}, {}, {}, {}
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do
    c = band(c, 1) == 1 and bxor(rshift(c, 1), 0xEDB88320) or rshift(c, 1)
  end
  T0[i] = c
end
for i = 0, 255 do
  T1[i] = bxor(rshift(T0[i], 8), T0[band(T0[i], 255)])
  T2[i] = bxor(rshift(T1[i], 8), T0[band(T1[i], 255)])
  T3[i] = bxor(rshift(T2[i], 8), T0[band(T2[i], 255)])
end

local function crc32(text)
  local crc, length, byte = tobit(0xFFFFFFFF), #text, string.byte
  local whole = length - length % 4
  for i = 1, whole, 4 do
    local a, b, c, d = byte(text, i, i + 3)
    crc = bxor(crc, a + b * 0x100 + c * 0x10000 + d * 0x1000000)
    crc = bxor(T3[band(crc, 255)], T2[band(rshift(crc, 8), 255)], T1[band(rshift(crc, 16), 255)], T0[rshift(crc, 24)])
  end
  for i = whole + 1, length do
    crc = bxor(T0[band(bxor(crc, byte(text, i)), 255)], rshift(crc, 8))
  end
  return tobit(bxor(crc, 0xFFFFFFFF))
end

local function add_time(tree, field, v)
  local ms = v:uint64()
  if ms < UInt64(0, 0x400) then -- dates that Wireshark can show
    local seconds = (ms / 1000):tonumber()
    tree:add(field, v, NSTime(seconds, (ms % 1000):tonumber() * 1000000)):set_generated()
  end
end

-- Each option: add its value to the tree, return whether it is right.  `v` is the range of the value, `n` its length.
local option_readers = {
  [0x0001] = function(tree, v, n)
    if n ~= 16 then return false end
    tree:add(f.req_task, v(0, 4))
    tree:add(f.req_broad, v(4, 2))
    tree:add(f.req_expert, v(6, 2))
    tree:add(f.req_trust, v(8, 2))
    tree:add(f.req_group, v(10, 2))
    tree:add(f.req_deadline, v(12, 4))
    return v(4, 2):uint() <= SCALE and v(6, 2):uint() <= SCALE and v(8, 2):uint() <= SCALE
  end,
  [0x0002] = function(tree, v, n)
    if n ~= 33 then return false end
    tree:add(f.digest_algorithm, v(0, 1))
    tree:add(f.digest_value, v(1, 32))
    return DIGESTS[v(0, 1):uint()] ~= nil
  end,
  [0x0003] = function(tree, v, n, tvb)
    if n < 16 or n > 16 + 1024 then return false end
    tree:add(f.ack_base, v(0, 4))
    tree:add(f.ack_echo, v(4, 4))
    tree:add(f.ack_delay, v(8, 4))
    tree:add(f.ack_window, v(12, 4))
    if n > 16 then
      tree:add(f.ack_bitmap, v(16, n - 16))
      tree:add(f.ack_first, v(0, 4), math.max(v(0, 4):uint(), tvb(24, 4):uint())):set_generated()
    end
    return true
  end,
  [0x0004] = function(tree, v, n)
    if n ~= 2 then return false end
    tree:add(f.error, v(0, 2)):add_proto_expert_info(e_error, ERRORS[v(0, 2):uint()] or "unknown code")
    return true
  end,
  [0x0005] = function(tree, v, n)
    if n ~= 112 then return false end
    tree:add(f.mandate_issued, v(0, 8))
    tree:add(f.mandate_expires, v(8, 8))
    add_time(tree, f.mandate_issued_time, v(0, 8))
    add_time(tree, f.mandate_expires_time, v(8, 8))
    tree:add(f.mandate_digest, v(16, 32))
    tree:add(f.mandate_signature, v(48, 64))
    return true
  end,
  [0x0006] = function(tree, v, n)
    if n ~= 32 then return false end
    tree:add(f.key_share, v)
    return true
  end,
  [0x0007] = function(tree, v, n)
    if n ~= 8 then return false end
    tree:add(f.sent_at, v)
    add_time(tree, f.sent_at_time, v)
    return true
  end,
  [0x0008] = function(tree, v, n)
    if n < 64 or n > 24 * 32 then return false end
    tree:add(f.blocks, v)
    return n % 32 == 0
  end,
  [0xFFFF] = function(tree, v, n)
    if n < 4 + 8 or n > 4 + 64 then return false end
    tree:add(f.auth_algorithm, v(0, 1))
    tree:add(f.auth_reserved, v(1, 1))
    tree:add(f.auth_key, v(2, 2))
    tree:add(f.auth_tag, v(4, n - 4))
    local room = TAG_BYTES[v(0, 1):uint()]
    return v(1, 1):uint() == 0 and room ~= nil and n - 4 >= room[1] and n - 4 <= room[2]
  end,
}

-- Add the options from FIXED to `stop`; return whether they obey the rules, and whether there is a digest.
local function add_options(tvb, tree, stop)
  local position, last, digest = FIXED, -1, false
  while position < stop do
    if stop - position < 4 then return false, digest end
    local kind, length = tvb(position, 2):uint(), tvb(position + 2, 2):uint()
    if kind <= last or length > stop - position - 4 then return false, digest end
    local branch = tree:add(tvb(position, 4 + length), "Option: " .. (OPTIONS[kind] or string.format("0x%04x", kind)))
    branch:add(f.option_type, tvb(position, 2))
    branch:add(f.option_length, tvb(position + 2, 2))
    local reader = option_readers[kind]
    if reader then
      if length == 0 or not reader(branch, tvb(position + 4, length), length, tvb) then return false, digest end
    elseif kind < SKIPPABLE then
      return false, digest
    elseif length > 0 then
      branch:add(f.option_value, tvb(position + 4, length))
    end
    digest = digest or kind == 0x0002
    last, position = kind, position + 4 + length
  end
  return true, digest
end

local function add_fixed(tvb, tree)
  tree:add(f.version, tvb(0, 1))
  tree:add(f.class, tvb(0, 1))
  tree:add(f.type, tvb(1, 1))
  local flags = tree:add(f.flags, tvb(2, 2))
  for _, flag in ipairs(FLAGS) do flags:add(f["flag_" .. flag[1]], tvb(2, 2)) end
  tree:add(f.header_length, tvb(4, 2))
  tree:add(f.payload_length, tvb(6, 2))
  tree:add(f.object_id, tvb(8, 8))
  local label = band(tvb(12, 4):uint(), 0x0FFFFFFF)
  tree:add(f.label, tvb(12, 4), label):set_generated()
  local address = string.format("%d.%d.%d.%d", 240 + rshift(label, 24), band(rshift(label, 16), 255),
    band(rshift(label, 8), 255), band(label, 255))
  tree:add(f.label_address, tvb(12, 4), Address.ip(address)):set_generated()
  tree:add(f.home_kas, tvb(12, 4), rshift(label, 20)):set_generated()
  tree:add(f.owner, tvb(16, 4))
  tree:add(f.transfer_id, tvb(20, 4))
  tree:add(f.shard_index, tvb(24, 4))
  tree:add(f.shard_count, tvb(28, 4))
  tree:add(f.offset, tvb(32, 8))
  tree:add(f.total_length, tvb(40, 8))
  tree:add(f.visit, tvb(48, 2))
  tree:add(f.visit_limit, tvb(50, 2))
  tree:add(f.timestamp_us, tvb(52, 4))
  tree:add(f.payload_checksum, tvb(56, 4))
  tree:add(f.header_checksum, tvb(60, 4))
end

local function shard_wrong(tvb, length, digest)
  local count, kind = tvb(28, 4):uint(), tvb(1, 1):uint()
  if kind ~= 1 and kind ~= 2 then return false end
  if band(tvb(2, 2):uint(), LAUNCH) ~= 0 then return length > 0 or count == 0 or not digest end
  local offset, total = tvb(32, 8):uint64(), tvb(40, 8):uint64()
  return tvb(24, 4):uint() >= count or total < offset or total - offset < UInt64(length)
end

-- Return the reason for which receivers refuse the packet, or nil; options are added to the tree on the way.
local function judge(tvb, tree)
  local seen, whole = tvb:len(), tvb:reported_len()
  local header, length = tvb(4, 2):uint(), tvb(6, 2):uint()
  if tvb(0, 1):bitfield(0, 4) ~= VERSION then return "version" end
  if header < FIXED or header + length ~= whole then return "length" end
  if seen < header then return nil end
  local raw = tvb:raw(0, 60) .. "\0\0\0\0" .. (header > FIXED and tvb:raw(FIXED, header - FIXED) or "")
  if crc32(raw) ~= tobit(tvb(60, 4):uint()) then return "header-checksum" end
  if not TYPES[tvb(1, 1):uint()] then return "type" end
  local right, digest = add_options(tvb, tree, header)
  if not right then return "option" end
  local sealed = tvb(1, 1):uint() <= 2 and band(tvb(2, 2):uint(), SEALED) ~= 0
  if seen == whole and ai.prefs.check_payload and not sealed then
    local payload = length > 0 and tvb:raw(header, length) or ""
    if crc32(payload) ~= tobit(tvb(56, 4):uint()) then return "payload-checksum" end
  end
  if shard_wrong(tvb, length, digest) then return "shard" end
  return nil
end

local function info(tvb)
  local kind, flags = tvb(1, 1):uint(), tvb(2, 2):uint()
  local names = {}
  for _, flag in ipairs(FLAGS) do
    if band(flags, flag[3]) ~= 0 then names[#names + 1] = flag[2] end
  end
  local text = string.format("%s object 0x%s visit %d", TYPES[kind] or ("type " .. kind),
    tvb(8, 8):bytes():tohex():lower():gsub("^0+(%x)", "%1"), tvb(48, 2):uint())
  if tvb(28, 4):uint() > 0 and kind <= 2 then
    text = text .. string.format(" shard %d/%d", tvb(24, 4):uint(), tvb(28, 4):uint())
  end
  text = text .. string.format(" len %d", tvb(6, 2):uint())
  return #names > 0 and text .. " [" .. table.concat(names, ", ") .. "]" or text
end

local function launch_digest(tvb, header)
  local position = FIXED
  while position < header do
    local length = tvb(position + 2, 2):uint()
    if tvb(position, 2):uint() == 0x0002 then return tvb(position + 5, 32):bytes() end
    position = position + 4 + length
  end
end

-- Objects being put together, by name; `complete` by the number of the frame that completed them.  A frame is read once
-- in order and then, in Wireshark, again whenever it is shown: only the first time counts.
local objects, complete, held_bytes = {}, {}, 0

local function object_name(tvb, kind, flags)
  local name = tvb:raw(8, 8) .. tvb:raw(48, 2) .. tvb:raw(28, 4) .. tvb:raw(40, 8) .. kind
  return band(flags, ENCRYPTED) ~= 0 and name .. tvb:raw(20, 4) or name -- ciphertext: every transfer has its own key
end

local function new_object(tvb)
  local total = tvb(40, 8):uint64()
  local limit = ai.prefs.reassemble_mib * 1048576
  local small = total <= UInt64(limit) and held_bytes + total:tonumber() <= limit
  if small then held_bytes = held_bytes + total:tonumber() end
  return { shards = {}, missing = tvb(28, 4):uint(), count = tvb(28, 4):uint(), repeated = 0, small = small,
           total = small and total:tonumber() or 0 }
end

local function take_shard(tvb, pinfo, object, header, length)
  local index = tvb(24, 4):uint()
  if object.shards[index] then
    object.repeated = object.repeated + 1
    return
  end
  object.first = object.first or pinfo.number
  object.shards[index] = length > 0 and tvb:raw(header, length) or ""
  object.missing = object.missing - 1
  if object.missing > 0 then return end
  local parts = {}
  for i = 0, object.count - 1 do parts[i + 1] = object.shards[i] end
  object.data, object.shards, object.frame = table.concat(parts), {}, pinfo.number
  if #object.data == object.total then complete[pinfo.number] = object end
end

-- Note what a good frame adds to its object; return the object where there is one to speak of.
local function reassemble(tvb, pinfo)
  local kind, flags, header = tvb(1, 1):uint(), tvb(2, 2):uint(), tvb(4, 2):uint()
  if kind > 2 or not ai.prefs.reassemble or tvb:len() < tvb:reported_len() then return nil end
  local name = object_name(tvb, kind, flags)
  local object = objects[name]
  if pinfo.visited then return object end
  if not object then
    object = new_object(tvb)
    objects[name] = object
  end
  if band(flags, LAUNCH) ~= 0 then
    object.launch = object.launch or pinfo.number
    object.digest = object.digest or launch_digest(tvb, header)
  elseif object.small and not object.frame then
    take_shard(tvb, pinfo, object, header, tvb(6, 2):uint())
  end
  return object
end

local function add_object(tree, object)
  local tvb = ByteArray.new(object.data, true):tvb("Reassembled AI object")
  local title = string.format("Reassembled object: %d bytes of %d shards", #object.data, object.count)
  local branch = tree:add(ai, tvb(), title)
  branch:add(f.reassembled_length, tvb(), UInt64(#object.data)):set_generated()
  branch:add(f.reassembled_count, tvb(), object.count):set_generated()
  branch:add(f.reassembled_repeated, tvb(), object.repeated):set_generated()
  branch:add(f.reassembled_first, tvb(), object.first):set_generated()
  if object.launch then branch:add(f.reassembled_launch, tvb(), object.launch):set_generated() end
  if object.digest then branch:add(f.reassembled_digest, object.digest:tvb("Digest")()):set_generated() end
  if #object.data > 10 and tvb(0, 8):le_uint64() < UInt64(#object.data - 8) and tvb(8, 1):string() == "{" then
    local length = tvb(0, 4):le_uint()
    branch:add(f.reassembled_tensors, tvb(8, length))
  end
  if #object.data > 0 then branch:add(f.reassembled_data, tvb()) end
end

local function show_object(tree, tvb, pinfo)
  local object = reassemble(tvb, pinfo)
  if not object then return end
  if complete[pinfo.number] then
    add_object(tree, complete[pinfo.number])
    pinfo.cols.info:append(" [object complete]")
  elseif object.frame then
    tree:add(f.reassembled_in, tvb(), object.frame):set_generated()
  end
end

local function refuse(tree, tvb, pinfo, reason)
  tree:add(f.refused, tvb(), reason):set_generated()
  local kind = reason:find("checksum") and e_checksum or e_malformed
  tree:add_proto_expert_info(kind, "Receivers refuse this packet: " .. reason)
  pinfo.cols.info:append(" [refused: " .. reason .. "]")
end

-- The tap "AI journey": one line for each visit of each object.  The dissector leaves what it saw of a frame in `seen`,
-- and the listener, which comes by right after, takes it from there.
local seen, taps = nil, 0

local function note_journey(tvb, pinfo)
  if taps == 0 or tvb(1, 1):uint() > 2 and tvb(1, 1):uint() ~= 7 then return end
  seen = {
    frame = pinfo.number, kind = tvb(1, 1):uint(), flags = tvb(2, 2):uint(), object = tvb(8, 8):bytes():tohex():lower(),
    visit = tvb(48, 2):uint(), index = tvb(24, 4):uint(), length = tvb(6, 2):uint(), total = tvb(40, 8):uint64(),
  }
end

local function is_label(address)
  local first = tonumber(address:match("^(%d+)%."))
  return first ~= nil and first >= 240
end

local function new_visit(one)
  return { object = one.object, visit = one.visit, kind = "?", from = {}, to = {}, shards = {}, bytes = 0, repeated = 0,
           total = one.total }
end

local function add_once(list, value)
  for _, known in ipairs(list) do
    if known == value then return end
  end
  list[#list + 1] = value
end

local function add_to_visit(visit, one, source, destination, time)
  visit.first, visit.last = math.min(visit.first or time, time), math.max(visit.last or time, time)
  if one.kind == 7 then -- an acknowledgement comes from the rendezvous
    add_once(visit.to, source)
    return
  end
  visit.kind = TYPES[one.kind]
  add_once(visit.from, source)
  if is_label(destination) then visit.label = destination else add_once(visit.to, destination) end
  if band(one.flags, LAUNCH) ~= 0 or visit.shards[one.index] then return end -- a shard counts once, on whatever link
  visit.shards[one.index] = true
  visit.bytes = visit.bytes + one.length
  if band(one.flags, REPEATED) ~= 0 then visit.repeated = visit.repeated + 1 end
end

local LINE = "%-18s %5s  %-11s %-15s %-15s %12s %10s\n"

local function journey_text(visits)
  local order, began, bytes, lines = {}, {}, 0, {}
  for _, visit in pairs(visits) do
    order[#order + 1] = visit
    began[visit.object] = math.min(began[visit.object] or visit.first, visit.first)
  end
  table.sort(order, function(a, b) -- objects as they set out, each with its visits in order
    if a.object == b.object then return a.visit < b.visit end
    if began[a.object] ~= began[b.object] then return began[a.object] < began[b.object] end
    return a.object < b.object
  end)
  lines[1] = "AI journey\n" .. LINE:format("object", "visit", "type", "from", "to", "bytes", "seconds")
  for _, visit in ipairs(order) do
    local to = #visit.to > 0 and table.concat(visit.to, ",") or (visit.label or "?")
    lines[#lines + 1] = LINE:format("0x" .. visit.object, visit.visit, visit.kind, table.concat(visit.from, ","), to,
      visit.bytes, string.format("%.6f", visit.last - visit.first))
    bytes = bytes + visit.bytes
  end
  local count = 0
  for _ in pairs(began) do count = count + 1 end
  lines[#lines + 1] = string.format("%d objects, %d visits, %d bytes\n", count, #order, bytes)
  return table.concat(lines)
end

local function journey_listener(show)
  local visits, tap = {}, Listener.new("frame", "ai")
  taps = taps + 1
  function tap.packet(pinfo)
    if not seen or seen.frame ~= pinfo.number then return end
    local name = seen.object .. "/" .. seen.visit
    visits[name] = visits[name] or new_visit(seen)
    add_to_visit(visits[name], seen, tostring(pinfo.src), tostring(pinfo.dst), tonumber(tostring(pinfo.rel_ts)))
  end
  function tap.draw() show(journey_text(visits)) end
  function tap.reset() visits = {} end
  return tap
end

local function journey_window()
  local window = TextWindow.new("AI journey")
  local tap = journey_listener(function(text) window:set(text) end)
  window:set_atclose(function()
    tap:remove()
    taps = taps - 1
  end)
  retap_packets()
end

local told = nil
function ai.prefs_changed()
  if ai.prefs.journey and not told and not gui_enabled() then
    told = journey_listener(function(text) io.stdout:write(text) end)
  end
end

local function register_journey()
  if gui_enabled() then register_menu("AI journey", journey_window, MENU_STAT_UNSORTED) end
end

function ai.dissector(tvb, pinfo, root)
  pinfo.cols.protocol = "AI"
  local tree = root:add(ai, tvb())
  local cut = tvb:len() < tvb:reported_len()
  if cut then tree:add(f.cut, tvb(), true):set_generated() end
  if tvb:len() < FIXED then
    pinfo.cols.info = "AI packet, " .. tvb:len() .. " bytes seen"
    if tvb:reported_len() < FIXED then refuse(tree, tvb, pinfo, "short") end
    return tvb:len()
  end
  pinfo.cols.info = info(tvb)
  add_fixed(tvb, tree)
  local reason = judge(tvb, tree)
  if reason then
    refuse(tree, tvb, pinfo, reason)
  else
    if band(tvb(2, 2):uint(), REPEATED) ~= 0 then tree:add_proto_expert_info(e_repeated) end
    show_object(tree, tvb, pinfo)
    note_journey(tvb, pinfo)
  end
  local header = tvb(4, 2):uint()
  if header >= FIXED and header < tvb:len() then tree:add(f.payload, tvb(header)) end
  return tvb:len()
end

function ai.init()
  objects, complete, held_bytes = {}, {}, 0
end

DissectorTable.get("udp.port"):add(PORT, ai)
register_journey()
