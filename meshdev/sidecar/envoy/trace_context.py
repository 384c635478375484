"""W3C trace context for the requests of traced claims: each becomes a span, of its client's trace or of a new one.

Envoy's own tracers put their headers on every request of a listener, also on those that nobody claimed. A Lua filter is
off where its route says nothing of it (docs/design/0026).
Source: https://www.w3.org/TR/trace-context/ (Level 1, 3.2 and 4; of Level 2 the flag ``random-trace-id``).
"""

from typing import Any, Final

from meshdev.sidecar.envoy import names
from meshdev.sidecar.envoy.http import typed

Object = dict[str, Any]

#: What a record has as parent where the client sent no valid traceparent.
NO_PARENT: Final = "none"
_FILTER: Final = "envoy.filters.http.lua"
_LUA: Final = "envoy.extensions.filters.http.lua.v3"
_SCRIPT: Final = "trace"

#: Runs once for each request, before the router, and looks at nothing but its head. Where it fails, the request goes on
#: as it came: nothing is changed before all is known. Envoy has one Lua state for each of its threads, all of which
#: would draw the same from ``math.random``.
SCRIPT: Final = rf"""
local RANDOM_BYTES = 3072
local random, next_byte = "", 1

-- An id of so many bytes, from the kernel's generator. That it is all zeros, and invalid, does not happen (2^-64).
local function new_id(bytes)
  if next_byte + bytes - 1 > #random then
    local file = assert(io.open("/dev/urandom", "rb"))
    random, next_byte = file:read(RANDOM_BYTES), 1
    file:close()
  end
  local first = next_byte
  next_byte = first + bytes
  return string.format(string.rep("%02x", bytes), string.byte(random, first, next_byte - 1))
end

-- Trace id, parent id and flags of a traceparent; nil where it is invalid.
local function parse(header)
  local version, trace, parent, flags, rest = string.match(
    header, "^([0-9a-f][0-9a-f])%-([0-9a-f]+)%-([0-9a-f]+)%-([0-9a-f][0-9a-f])(.*)$")
  if version == nil or version == "ff" or #trace ~= 32 or #parent ~= 16 then return nil end
  if not string.find(trace, "[^0]") or not string.find(parent, "[^0]") then return nil end
  -- Version 00 ends here; a later one is read as 00, as far as that goes (4.3: "set all unknown flags to 0").
  local known = 0x03
  if version ~= "00" then
    if rest ~= "" and string.sub(rest, 1, 1) ~= "-" then return nil end
    known = 0x01
  elseif rest ~= "" then
    return nil
  end
  return trace, parent, string.format("%02x", bit.band(tonumber(flags, 16), known))
end

function envoy_on_request(request)
  local headers = request:headers()
  local span = new_id(8)
  local trace, parent, flags
  if headers:getNumValues("traceparent") == 1 then
    trace, parent, flags = parse(headers:get("traceparent"))
  end
  if trace == nil then
    -- A new trace; tracestate belongs to the former one, or to none (4.2, 4.3).
    trace, parent, flags = new_id(16), "{NO_PARENT}", "01"
    headers:remove("tracestate")
  end
  headers:replace("traceparent", "00-" .. trace .. "-" .. span .. "-" .. flags)
  request:streamInfo():dynamicMetadata():set("{names.METADATA}", "{names.PARENT}", parent)
end
"""


def http_filter() -> Object:
    """For an HTTP connection manager: does nothing but where :func:`of_route` says so."""
    config = typed(
        f"{_LUA}.Lua",
        source_codes={_SCRIPT: {"inline_string": SCRIPT}},
        # The route is chosen by what the client sent, also where that was a traceparent.
        clear_route_cache=False,
    )
    return {"name": _FILTER, "typed_config": config, "disabled": True}


def of_route() -> Object:
    """For a route whose requests are traced."""
    return {"typed_per_filter_config": {_FILTER: typed(f"{_LUA}.LuaPerRoute", name=_SCRIPT)}}
