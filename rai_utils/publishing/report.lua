-- How pandoc sets what Markdown alone does not say: equations that may break, tables whose cells
-- name their columns, so that a narrow page can stack them, and pictures at one scale.

local PIXELS_PER_INCH = 144 -- one and a half times the printed size
local LONGEST_INLINE = 30
local MOST_COLUMNS_ON_A_NARROW_PAGE = 3

local function set(names)
  local members = {}
  for name in names:gmatch("%S+") do members[name] = true end
  return members
end

local spaces = set [[\qquad \quad]]
local relations = set [[= + < > \approx \le \ge]]
local opening = set [[{ ( [ \{ \left \begin]]
local closing = set [[} ) ] \} \right \end]]

-- The parts of an equation between its wide spaces and before its relations.
local function pieces_of(kind, latex)
  local pieces, piece, depth, place = {}, "", 0, 1
  local function cut(rest)
    if piece:find("[^ {}]") then table.insert(pieces, pandoc.Math(kind, piece)) end
    piece = rest
  end
  while place <= #latex do
    local token = latex:match("^\\%a+", place) or latex:match("^\\?.", place)
    place = place + #token
    depth = depth + (opening[token] and 1 or 0) - (closing[token] and 1 or 0)
    if depth == 0 and spaces[token] then
      cut("")
    elseif depth == 0 and relations[token] and piece:find("[^ {}]") then
      cut("{}" .. token) -- with nothing before it, it would be set like the sign of a number
    else
      piece = piece .. token
    end
  end
  cut("")
  return pieces
end

function Math(math)
  if math.mathtype == "InlineMath" then
    return #math.text > LONGEST_INLINE and pieces_of("InlineMath", math.text) or nil
  end
  local number = math.text:match("\\tag(%b{})")
  local content = { pandoc.Span(pieces_of("DisplayMath", (math.text:gsub("\\tag%b{}", "")))) }
  if number then table.insert(content, pandoc.Span("(" .. number:sub(2, -2) .. ")")) end
  return pandoc.Span(content, { class = "equation" })
end

-- A table that is stacked is no table for a browser any more; its roles say that it is one. Pairs
-- keep their order, or the page would have other bytes in each run.
function Table(tab)
  local names = {}
  local function dress(part, row_heads)
    part.attributes.role = "rowgroup"
    for _, row in ipairs(part.rows or part.body) do
      row.attributes.role = "row"
      for column, cell in ipairs(row.cells) do
        if not row_heads then
          names[column] = pandoc.utils.stringify(cell.contents)
          cell.attributes = { { "role", "columnheader" }, { "scope", "col" } }
        elseif column == 1 then
          cell.attributes = { { "role", "rowheader" }, { "scope", "row" } }
        else
          cell.attributes = { { "role", "cell" }, { "data-label", names[column] } }
        end
      end
    end
  end
  dress(tab.head, false)
  for _, body in ipairs(tab.bodies) do
    body.row_head_columns = 1
    dress(body, true)
  end
  tab.attributes.role = "table"
  if #names > MOST_COLUMNS_ON_A_NARROW_PAGE then tab.classes:insert("stacked") end
  return tab
end

function Image(image)
  local _, content = pandoc.mediabag.fetch(image.src)
  local size = pandoc.image.size(content)
  image.attributes.width = tostring(PIXELS_PER_INCH * size.width // size.dpi_horz)
  return image
end
