# SPDX-License-Identifier: MIT
# The folder that has software/, above this file: the tree may have been copied.
proc tree {} {
    set folder [file dirname $::ModulesCurrentModulefile]
    while {![file isdirectory $folder/software] && $folder ne "/"} {
        set folder [file dirname $folder]
    }
    return $folder
}

proc cpuFeatures {} {
    if {[catch {open /proc/cpuinfo} file]} {
        return {}
    }
    set text [read $file]
    close $file
    return [expr {[regexp -line {^Features\s*:(.*)$} $text - features] ? $features : {}}]
}

# The prefix for this node's CPU: the first build whose features it has.
proc pick {name version rootVariable builds} {
    # Unloaded is what was loaded, wherever and however that was picked.
    if {[module-info mode unload] && [info exists ::env($rootVariable)]} {
        return $::env($rootVariable)
    }
    set features [cpuFeatures]
    set asked {}
    if {[info exists ::env(ACL_QLINEAR_MICROARCHITECTURE)]} {
        set asked $::env(ACL_QLINEAR_MICROARCHITECTURE)
    }
    set deployed {}
    set reasons {}
    set fallback /
    foreach {build needed} $builds {
        set prefix [tree]/software/$build/$name/$version
        if {[file isdirectory $prefix]} {
            set missing {}
            foreach feature $needed {
                if {$feature ni $features} {
                    lappend missing $feature
                }
            }
            if {$asked eq $build || ($asked eq {} && ![llength $missing])} {
                return $prefix
            }
            lappend deployed $build
            lappend reasons "$build needs [join $missing {, }]"
            set fallback $prefix
        }
    }
    if {[module-info mode load] && $asked ne {}} {
        puts stderr "ERROR: ACL_QLINEAR_MICROARCHITECTURE is '$asked', expected one of: [join $deployed {, }]"
        return -code break
    } elseif {[module-info mode load]} {
        puts stderr "ERROR: $name $version has no build for this node's CPU, which lacks what each needs:\
            [join $reasons {; }]. Use a node with Armv8.2-A or newer."
        return -code break
    }
    return $fallback
}

set root [pick $name $version $rootVariable $builds]
