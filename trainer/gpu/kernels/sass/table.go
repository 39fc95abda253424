package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// header explains the table.
const header = `# What kernels/build.sh found in the machine code of each kernel, on sm_80 and on sm_90:
#   regs    registers of a thread
#   spill   bytes of a thread that are stored to memory, as registers were too few
#   warps   that an SM can hold with so many registers, of 64 (a block has 1 to 10; shared memory may allow fewer)
#   hot     instructions of the hot loop, the innermost one with the most multiply-adds, of those the one with the
#           most loads; - without a loop
#   fma     its share of multiply-adds, in %
#   loop    its loads from global memory / the rounds in which they are waited for: loads are one round as long as
#           none of them is needed
#   all     the same of all the code from top to bottom, whatever a thread leaves out
`

// printTable writes a line for each kernel.
func printTable(to io.Writer, all map[build]figures) {
	fmt.Fprint(to, header)
	names := map[string]bool{}
	for b := range all {
		names[b.kernel] = true
	}
	columns := fmt.Sprintf(" %4s %5s %5s %4s %3s %6s %7s", "regs", "spill", "warps", "hot", "fma", "loop", "all")
	fmt.Fprintf(to, "%-26s%s |%s\n", "# kernel", columns, columns)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		var cells []string
		for _, arch := range archs {
			cells = append(cells, all[build{name, arch}].String())
		}
		fmt.Fprintf(to, "%-26s%s\n", name, strings.Join(cells, " |"))
	}
}

// String is the part of a line that is about one device.
func (f figures) String() string {
	hot, fma, loop := "-", "-", "-"
	if f.loop.instructions > 0 {
		hot = strconv.Itoa(f.loop.instructions)
		fma = strconv.Itoa((100*f.loop.fma + f.loop.instructions/2) / f.loop.instructions)
		loop = fmt.Sprintf("%d/%d", f.loop.loads, f.loop.rounds)
	}
	return fmt.Sprintf(" %4d %5d %5d %4s %3s %6s %7s", f.registers, f.spilled, f.warps(), hot, fma, loop,
		fmt.Sprintf("%d/%d", f.all.loads, f.all.rounds))
}

// rule is a line of the limits: a family of kernels and the most that one of them may
// have.
type rule struct {
	pattern                      string // as in path.Match
	loop, all, registers, spills int    // -1: no limit
}

// readRules reads the limits. The first line that fits a kernel holds for it.
func readRules(name string) ([]rule, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var rules []rule
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		var limits []int
		for _, w := range words[1:] {
			limit, err := strconv.Atoi(w)
			if w == "-" {
				limit, err = -1, nil
			}
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %q is neither a number nor -", name, n, w)
			}
			limits = append(limits, limit)
		}
		if _, err := path.Match(words[0], ""); err != nil || len(limits) != 4 {
			return nil, fmt.Errorf("%s:%d: a line has a pattern and four limits", name, n)
		}
		rules = append(rules, rule{words[0], limits[0], limits[1], limits[2], limits[3]})
	}
	return rules, nil
}

// check returns a line for each figure that is beyond its limit. A kernel without a
// rule and a rule without a kernel are errors.
func check(rules []rule, all map[build]figures) ([]string, error) {
	var beyond []string
	used := map[string]bool{}
	order := func(a, b build) int {
		return cmp.Or(strings.Compare(a.kernel, b.kernel), strings.Compare(a.arch, b.arch))
	}
	for _, b := range slices.SortedFunc(maps.Keys(all), order) {
		i := slices.IndexFunc(rules, func(r rule) bool { ok, _ := path.Match(r.pattern, b.kernel); return ok })
		if i < 0 {
			return nil, fmt.Errorf("no line of the limits is for %s: add one", b.kernel)
		}
		r, f := rules[i], all[b]
		used[r.pattern] = true
		for _, c := range []struct {
			what       string
			got, limit int
		}{
			{"rounds of loads in the hot loop", f.loop.rounds, r.loop},
			{"rounds of loads in all", f.all.rounds, r.all},
			{"registers", f.registers, r.registers},
			{"spilled bytes", f.spilled, r.spills},
		} {
			if c.limit >= 0 && c.got > c.limit {
				beyond = append(beyond, fmt.Sprintf("%s on %s has %d %s, its limit is %d (%s)",
					b.kernel, b.arch, c.got, c.what, c.limit, r.pattern))
			}
		}
	}
	for _, r := range rules {
		if !used[r.pattern] {
			return nil, fmt.Errorf("the limits of %s are for no kernel: remove the line", r.pattern)
		}
	}
	return beyond, nil
}
