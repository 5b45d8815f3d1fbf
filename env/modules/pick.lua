-- SPDX-License-Identifier: MIT
-- The folder that has software/, above this file: the tree may have been copied.
local function tree()
    local folder = myFileName()
    repeat
        folder = folder:match("^(.*)/[^/]*$")
    until not folder or isDir(pathJoin(folder, "software"))
    return folder or "/"
end

local function cpu_features()
    local found, file = {}, io.open("/proc/cpuinfo")
    for line in file and file:lines() or function() end do
        for feature in (line:match("^Features%s*:(.*)") or ""):gmatch("%S+") do
            found[feature] = true
        end
    end
    return found
end

-- The prefix for this node's CPU: the first build whose features it has.
local function pick()
    -- Unloaded is what was loaded, wherever and however that was picked.
    if mode() == "unload" and os.getenv(root_variable) then
        return os.getenv(root_variable)
    end
    local features, asked = cpu_features(), os.getenv("ACL_QLINEAR_MICROARCHITECTURE")
    local deployed, reasons, fallback = {}, {}, nil
    for _, build in ipairs(builds) do
        local prefix = pathJoin(tree(), "software", build.name, name, version)
        if isDir(prefix) then
            local missing = {}
            for feature in build.features:gmatch("%S+") do
                if not features[feature] then
                    missing[#missing + 1] = feature
                end
            end
            if asked == build.name or (not asked and #missing == 0) then
                return prefix
            end
            deployed[#deployed + 1] = build.name
            reasons[#reasons + 1] = build.name .. " needs " .. table.concat(missing, ", ")
            fallback = prefix
        end
    end
    if mode() == "load" and asked then
        LmodError("ACL_QLINEAR_MICROARCHITECTURE is '" .. asked .. "', expected one of: " .. table.concat(deployed, ", "))
    elseif mode() == "load" then
        LmodError(name .. " " .. version .. " has no build for this node's CPU, which lacks what each needs: "
            .. table.concat(reasons, "; ") .. ". Use a node with Armv8.2-A or newer.")
    end
    return fallback or "/"
end

local root = pick()
