// Command sass makes the table resources.txt out of the disassembled kernels: what a
// thread takes, and in how many rounds a kernel waits for memory. kernels/build.sh
// runs it.
//
//	sass -limits FILE DIR
//
// DIR has *.resources, with a line "kernel arch registers spilled" for each kernel,
// and *.sass, the output of nvdisasm -c. The exit code is 1, after the table, where a
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

// blocks is how many blocks of 256 threads an SM can hold: its four parts have 16,384
// registers and room for 16 warps each, and registers are given out by 256 to a warp.
func (f figures) blocks() int {
	const warps = 256 / 32 / 4 // of a block in each part
	return min(16, 16384/((f.registers+7)/8*8*32)) / warps
}

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
}

// instruction is one line of a disassembly.
type instruction struct {
	opcode    string // with suffixes
	registers []string
}

var (
	archLine        = regexp.MustCompile(`EF_CUDA_SM(\d+) `)
	textLine        = regexp.MustCompile(`^\.text\.(\w+):`)
	labelLine       = regexp.MustCompile(`^\s*(\.L_\w+):`)
	instructionLine = regexp.MustCompile(`^\s+/\*[0-9a-f]+\*/\s+(?:\{ )?(?:@!?U?P\w+ )?\s*([A-Z][\w.]*)(.*?);`)
	register        = regexp.MustCompile(`\bR\d+\b`)
	branchTarget    = regexp.MustCompile("`\\((\\.L_\\w+)\\)")
)

// parse reads what nvdisasm -c prints of one file.
func parse(r io.Reader) (map[build]*code, error) {
	all, labels := map[build]*code{}, map[string]int{}
	var arch string
	var now *code
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if m := archLine.FindStringSubmatch(line); m != nil {
			arch = "sm_" + m[1]
		} else if m := textLine.FindStringSubmatch(line); m != nil {
			now = &code{}
			all[build{m[1], arch}] = now
		} else if strings.HasPrefix(line, "//------") {
			now = nil
		} else if now == nil {
			continue
		} else if m := labelLine.FindStringSubmatch(line); m != nil {
			labels[m[1]] = len(now.instructions)
		} else if m := instructionLine.FindStringSubmatch(line); m != nil {
			i := instruction{opcode: m[1], registers: register.FindAllString(m[2], -1)}
			if t := branchTarget.FindStringSubmatch(m[2]); t != nil && i.is("BRA") {
				if first, ok := labels[t[1]]; ok && first < len(now.instructions) {
					now.loops = append(now.loops, [2]int{first, len(now.instructions)})
				}
			}
			now.instructions = append(now.instructions, i)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 || arch == "" {
		return nil, fmt.Errorf("this is no output of nvdisasm -c")
	}
	return all, nil
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
