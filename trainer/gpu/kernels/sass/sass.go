// Command sass makes the table resources.txt out of the disassembled kernels: what a
// thread takes, and in how many rounds a kernel waits for memory. kernels/build.sh
// runs it.
//
//	sass -limits FILE DIR
//
// DIR has *.resources, with a line "kernel arch registers spilled" for each kernel,
// and *.sass, the output of nvdisasm -c -hex. The exit code is 1, after the table, where a
// kernel is beyond its limit.
package main

import (
	"bufio"
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	limits := flag.String("limits", "", "`file` with the limits of each family of kernels")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: sass -limits FILE DIR")
		os.Exit(2)
	}
	beyond, err := run(os.Stdout, *limits, flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, "sass:", err)
		os.Exit(2)
	}
	for _, line := range beyond {
		fmt.Fprintln(os.Stderr, line)
	}
	if len(beyond) > 0 {
		os.Exit(1)
	}
}

// run prints the table and returns what is beyond the limits.
func run(to io.Writer, limits, dir string) ([]string, error) {
	rules, err := readRules(limits)
	if err != nil {
		return nil, err
	}
	figures, err := readFigures(dir)
	if err != nil {
		return nil, err
	}
	printTable(to, figures)
	return check(rules, figures)
}

// build names one kernel's machine code.
type build struct{ kernel, arch string }

// archs are the columns of the table.
var archs = []string{"sm_80", "sm_90"}

// figures is what the table says of one build.
type figures struct {
	registers, spilled int
	loop               part // the innermost loop with the most multiply–adds, or loads if it has none
	all                part
}

// part is a stretch of instructions.
type part struct {
	instructions, fma int
	loads, rounds     int
}

// warps is how many warps an SM can hold: its four parts have 16,384 registers and
// room for 16 warps each, and registers are given out by 256 to a warp.
func (f figures) warps() int { return 4 * min(16, 16384/((f.registers+7)/8*8*32)) }

// readFigures reads the files of a folder.
func readFigures(dir string) (map[build]figures, error) {
	all := map[build]figures{}
	resources, _ := filepath.Glob(filepath.Join(dir, "*.resources"))
	for _, name := range resources {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			var b build
			var f figures
			if _, err := fmt.Sscan(line, &b.kernel, &b.arch, &f.registers, &f.spilled); err != nil {
				return nil, fmt.Errorf("%s: %q is not \"kernel arch registers spilled\"", name, strings.TrimSpace(line))
			}
			all[b] = f
		}
	}
	listings, _ := filepath.Glob(filepath.Join(dir, "*.sass"))
	for _, name := range listings {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		kernels, err := parse(file)
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for b, code := range kernels {
			f, ok := all[b]
			if !ok {
				return nil, fmt.Errorf("%s: no registers of %s on %s in a .resources file", name, b.kernel, b.arch)
			}
			f.loop, f.all = measure(code.hot()), measure(code.instructions)
			all[b] = f
		}
	}
	for b, f := range all {
		if slices.Contains(archs, b.arch) && f.all.instructions == 0 {
			return nil, fmt.Errorf("%s: no disassembly of %s on %s", dir, b.kernel, b.arch)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no *.resources", dir)
	}
	return all, nil
}

// code is the machine code of a kernel. A loop is a branch back: the indices of its
// first and its last instruction.
type code struct {
	instructions []instruction
	loops        [][2]int
	branches     []branch
}

// instruction is one line of a disassembly.
type instruction struct {
	opcode    string // with suffixes
	registers []string
	address   int64
}

// branch is an instruction that goes to an address, which may have a label.
type branch struct {
	index  int
	target int64
	label  string
}

var (
	archLine        = regexp.MustCompile(`EF_CUDA_SM(\d+) `)
	textLine        = regexp.MustCompile(`^\.text\.(\w+):`)
	labelLine       = regexp.MustCompile(`^\s*(\.L_\w+):`)
	instructionLine = regexp.MustCompile(
		`^\s+/\*([0-9a-f]+)\*/\s+(?:\{ )?(?:@!?U?P\w+ )?\s*([A-Z][\w.]*)(.*?);.*/\* 0x([0-9a-f]+) \*/`)
	secondWord   = regexp.MustCompile(`^\s+/\* 0x[0-9a-f]+ \*/$`)
	register     = regexp.MustCompile(`\bR\d+\b`)
	branchTarget = regexp.MustCompile("`\\((\\.L_\\w+)\\)")
)

// parse reads what nvdisasm -c -hex prints of one file. An instruction has two words,
// the second on a line of its own. Of one that nvdisasm does not know it prints the
// words alone, and neither its address nor a label that stands there, so that the
// targets of branches are read from their encoding.
func parse(r io.Reader) (map[build]*code, error) {
	all, labels := map[build]*code{}, map[string]int64{}
	var arch string
	var now *code
	var next []string // labels of the next instruction
	var half bool     // of the last instruction, the second word is missing
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if m := archLine.FindStringSubmatch(line); m != nil {
			arch = "sm_" + m[1]
		} else if m := textLine.FindStringSubmatch(line); m != nil {
			now = &code{}
			all[build{m[1], arch}] = now
		} else if strings.HasPrefix(line, "//------") {
			now, next, half = nil, nil, false
		} else if now == nil {
			continue
		} else if m := labelLine.FindStringSubmatch(line); m != nil {
			next = append(next, m[1])
		} else if m := instructionLine.FindStringSubmatch(line); m != nil {
			i := instruction{opcode: m[2], registers: register.FindAllString(m[3], -1)}
			var word uint64
			if _, err := fmt.Sscanf(m[1]+" "+m[4], "%x %x", &i.address, &word); err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			for _, label := range next {
				labels[label] = i.address
			}
			next = nil
			if t := branchTarget.FindStringSubmatch(m[3]); t != nil && i.is("BRA") {
				now.branches = append(now.branches, branch{len(now.instructions), targetOf(arch, i.address, word), t[1]})
			}
			now.instructions = append(now.instructions, i)
			half = true
		} else if secondWord.MatchString(line) && len(now.instructions) > 0 {
			if !half {
				unnamed := instruction{address: now.instructions[len(now.instructions)-1].address + 16}
				now.instructions = append(now.instructions, unnamed)
			}
			half = !half
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 || arch == "" {
		return nil, fmt.Errorf("this is no output of nvdisasm -c -hex")
	}
	for b, c := range all {
		if err := c.findLoops(labels); err != nil {
			return nil, fmt.Errorf("%s on %s: %w", b.kernel, b.arch, err)
		}
	}
	return all, nil
}

// targetOf is where a branch goes that has the given first word.
func targetOf(arch string, address int64, word uint64) int64 {
	offset := int64(word) >> 34
	if arch == "sm_90" {
		offset = offset<<8 | int64(word>>16&0xff)
	}
	return address + 16 + 4*offset
}

// findLoops finds the loops of a kernel, and fails where a label says that a branch
// goes elsewhere.
func (c *code) findLoops(labels map[string]int64) error {
	at := map[int64]int{}
	for n, i := range c.instructions {
		at[i.address] = n
	}
	for _, b := range c.branches {
		if target, ok := labels[b.label]; ok && target != b.target {
			return fmt.Errorf("the branch to %s goes to %#x by its encoding, but the label is at %#x", b.label, b.target, target)
		}
		first, ok := at[b.target]
		if !ok {
			return fmt.Errorf("the branch to %s goes to %#x, where no instruction is", b.label, b.target)
		}
		if first < b.index {
			c.loops = append(c.loops, [2]int{first, b.index})
		}
	}
	return nil
}

// is says whether an instruction is one of an opcode's variants.
func (i instruction) is(opcode string) bool {
	head, _, _ := strings.Cut(i.opcode, ".")
	return head == opcode
}

// hot is the body of the innermost loop with the most multiply–adds, of those the one
// with the most loads: nothing if there is no loop.
func (c *code) hot() []instruction {
	var best []instruction
	for _, l := range c.loops {
		inner := slices.ContainsFunc(c.loops, func(o [2]int) bool { return o != l && l[0] <= o[0] && o[1] <= l[1] })
		body := c.instructions[l[0] : l[1]+1]
		if m, b := measure(body), measure(best); !inner && cmp.Or(cmp.Compare(m.fma, b.fma), cmp.Compare(m.loads, b.loads)) > 0 {
			best = body
		}
	}
	return best
}

// measure counts. Loads from global memory are one round as long as no instruction
// reads or writes a register that one of them fills: then it waits.
func measure(body []instruction) part {
	p := part{instructions: len(body)}
	waiting := map[string]bool{}
	for _, i := range body {
		if slices.ContainsFunc(i.registers, func(r string) bool { return waiting[r] }) {
			clear(waiting)
		}
		switch {
		case i.is("FFMA"), i.is("HMMA"):
			p.fma++
		case i.is("LDG"), i.is("LD"):
			if len(waiting) == 0 {
				p.rounds++
			}
			p.loads++
			for _, r := range i.filled() {
				waiting[r] = true
			}
		}
	}
	return p
}

// filled are the registers that a load fills.
func (i instruction) filled() []string {
	if len(i.registers) == 0 {
		return nil
	}
	n, filled := 0, []string(nil)
	fmt.Sscanf(i.registers[0], "R%d", &n)
	words := 1
	switch {
	case strings.Contains(i.opcode+".", ".64."):
		words = 2
	case strings.Contains(i.opcode+".", ".128."):
		words = 4
	}
	for w := range words {
		filled = append(filled, fmt.Sprint("R", n+w))
	}
	return filled
}
