-- What the accessors of records want: see LAYOUT.md.
local sub, byte, number, pack = string.sub, string.byte, struct.unpack, struct.pack
