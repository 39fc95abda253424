package gpu

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// systems is one of each kind of network.
var systems = []struct {
	system string
	layout space.Layout
	depth  int
	side   int
	batch  int
}{
	{"IGC-L40M2", space.Flat, 8, 32, 64},
	{"IGC-L64M1", space.Flat, 8, 32, 64},
	{"IGC-L1M23", space.Flat, 8, 32, 33},
	{"IGC-L41M5", space.Flat, 8, 32, 1},
	{"IGC-L85M2", space.Flat, 8, 32, 100},
	{"IGC-L24M2", space.Stages, 20, 32, 64},
	{"RegConv-W18", space.Stages, 20, 32, 64},
	{"SumFusion", space.Stages, 5, 8, 3},
	{"IGC-L4M2/L2M8/L8M3", space.Stages, 8, 8, 3},
	{"IGC-L4M2+Swap", space.Stages, 5, 8, 3},
	{"IGC-L4M2+Proj", space.Stages, 5, 8, 3},
	{"IGC-L4M2+1x3", space.Stages, 5, 9, 3},
	{"IGC-L4M2+5x5", space.Stages, 5, 8, 3},
	{"IGC-L4M2+ReLU", space.Stages, 5, 8, 3},
	{"IGC-L4M4+B2", space.Stages, 5, 8, 3},
	{"IGC-L4M2+Ident.", space.Stages, 14, 8, 18},
	{"IGC-L4M2+Ident.+ReLU", space.Stages, 8, 8, 18},
	{"ResNet-C64", space.ImageNet, 18, 224, 32},
	{"IGC-L100M2+Ident.+2L", space.ImageNet, 10, 64, 17},
	{"IGC-L12M6+1x1", space.Flat, 8, 32, 64},
	{"IGCV2-M1K5K6K6", space.Flat, 8, 32, 64},
	{"IGCV2-M2K3K4+Ident.", space.Stages, 8, 8, 18},
	{"IGCV3-W32R6G2", space.Flat, 8, 32, 64},
	{"IGCV3-W8R2G2x4", space.Stages, 8, 8, 3},
	{"Monarch-M8", space.Flat, 8, 32, 64},
	{"RegNetX-W48G4", space.Flat, 8, 32, 64},
	{"ShuffleNet-W48G3", space.Stages, 8, 32, 64},
}

// network is a network for square pictures.
func network(t *testing.T, system string, layout space.Layout, depth, side, classes int) space.Network {
	t.Helper()
	s, err := space.ParseSystem(system)
	if err != nil {
		t.Fatal(err)
	}
	net, err := s.Network(space.Plan{Layout: layout, Depth: depth, In: space.Shape{C: 3, H: side, W: side},
		Classes: classes})
	if err != nil {
		t.Fatal(err)
	}
	return net
}

// newPlans are the plans of each purpose, in float32 and then in TF32.
func newPlans(t *testing.T, name string, layout space.Layout, depth, side, batch, classes int) []*plan {
	t.Helper()
	net := network(t, name, layout, depth, side, classes)
	m, err := graph.New(net, batch, graph.Options{Threads: 1, Average: true, Precise: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	var plans []*plan
	tensors, state := newTensors(m), kept("state", 32)
	for _, tf32 := range []bool{false, true} {
		for _, purpose := range []purpose{training, evaluating, measuring} {
			p := newPlan(tensors, m, batch, purpose, tf32, state, func(p *plan) {
				p.rows("repack", side, 3, &repackArgs{c: 3, h: int32(side), w: int32(side), n: int32(batch),
					from: kept("from", 4), x: p.x})
			})
			if purpose == training {
				p.update(0.9, 1e-4, kept("segments", 0), kept("rates", 8))
			}
			p.finish(kept("losses", 8), kept("corrects", 4))
			plans = append(plans, p)
		}
	}
	return plans
}

// TestNoTwoBuffersInUseOverlap is the planner's promise, for networks of every
// kind; and that sharing is worth it.
func TestNoTwoBuffersInUseOverlap(t *testing.T) {
	for _, s := range systems {
		t.Run(s.system, func(t *testing.T) {
			for _, p := range newPlans(t, s.system, s.layout, s.depth, s.side, s.batch, 10) {
				total := p.arrange()
				sum := 0
				var used []*buffer
				for _, b := range p.buffers {
					if b.first >= 0 || b.kept {
						used = append(used, b)
						sum += b.bytes
					}
				}
				for i, a := range used {
					if a.addr%align != 0 || a.addr+uint64(a.bytes) > uint64(total) {
						t.Errorf("%s: %d bytes at %d of %d", a.name, a.bytes, a.addr, total)
					}
					for _, b := range used[:i] {
						if (a.kept || b.kept || a.first <= b.last && b.first <= a.last) &&
							a.addr < b.addr+uint64(b.bytes) && b.addr < a.addr+uint64(a.bytes) {
							t.Errorf("%s (launches %d to %d) and %s (%d to %d) share memory", a.name, a.first, a.last,
								b.name, b.first, b.last)
						}
					}
				}
				t.Logf("%s: %d launches, %d MB, %d without sharing",
					[]string{"training", "evaluating", "measuring"}[p.purpose], len(p.launches), total>>20, sum>>20)
			}
		})
	}
}

// use is a piece of memory that a launch reads, or also writes.
type use struct {
	from, to uint64
	written  bool
	name     string
}

// usesOf returns what each launch reads and writes. args.h tells: what a kernel
// does not write is const there.
func usesOf(t *testing.T, p *plan) [][]use {
	t.Helper()
	written := map[string]bool{} // by structure and field
	for _, s := range argsOfKernels(t) {
		for _, f := range regexp.MustCompile(`PTR\((const )?[^)]*\) (\w+);`).FindAllStringSubmatch(s[1], -1) {
			written[s[2]+"."+bare(f[2])] = f[1] == ""
		}
	}
	names := map[reflect.Type]string{}
	for name, v := range structs {
		names[reflect.TypeOf(v)] = name
	}
	next := uint64(1) << 40
	var collect func(kernel string, v reflect.Value, list *[]use)
	collect = func(kernel string, v reflect.Value, list *[]use) {
		for i := range v.NumField() {
			f := v.Field(i)
			if f.Kind() == reflect.Struct {
				collect(kernel, f, list)
			}
			if f.Type() != reflect.TypeFor[*buffer]() || f.IsNil() {
				continue
			}
			b := (*buffer)(f.UnsafePointer())
			if r := b.root(); r.kept && r.addr == 0 { // it belongs to no plan
				r.addr = next
				next += 1 << 32
			}
			field := names[v.Type()] + "." + bare(v.Type().Field(i).Name)
			w, ok := written[field]
			if !ok {
				t.Fatalf("args.h has no %s", field)
			}
			if field == "igc_unit.out" && strings.HasSuffix(kernel, "_grad") {
				w = false // they read what the kernels without _grad wrote
			}
			*list = append(*list, use{b.address(), b.address() + uint64(b.bytes), w, b.name})
		}
	}
	list := make([][]use, len(p.launches))
	for i, l := range p.launches {
		collect(l.kernel, reflect.ValueOf(l.args).Elem(), &list[i])
	}
	return list
}

// races lists the launches that may run at the same time and use the same memory,
// which one of them writes, if a launch waits for the ones that waits has.
func races(p *plan, uses [][]use, waits []int) (list []string) {
	for j, second := range p.launches {
		over := -1 // of the other branch, when second begins
		for i, l := range p.launches[:j+1] {
			if l.aside == second.aside {
				over = max(over, waits[i])
			}
		}
		for i, first := range p.launches[:j] {
			if first.aside == second.aside || i <= over {
				continue
			}
			for _, a := range uses[i] {
				for _, b := range uses[j] {
					if (a.written || b.written) && a.from < b.to && b.from < a.to {
						list = append(list, fmt.Sprintf("launch %d, %s, and %d, %s: %s and %s", i, first.kernel, j,
							second.kernel, a.name, b.name))
					}
				}
			}
		}
	}
	return list
}

// TestBranchesDoNotRace: what one branch of a step writes, the other neither reads
// nor writes until it has waited.
func TestBranchesDoNotRace(t *testing.T) {
	for _, s := range systems {
		p := newPlans(t, s.system, s.layout, s.depth, s.side, s.batch, 10)[training]
		p.arrange()
		if list := races(p, usesOf(t, p), p.waits()); len(list) > 0 {
			t.Errorf("%s: %d races: %s", s.system, len(list), strings.Join(list, "\n"))
		}
	}
}

// TestWithoutAWaitBranchesRace leaves out each wait in turn.
func TestWithoutAWaitBranchesRace(t *testing.T) {
	p := newPlans(t, "IGC-L40M2", space.Flat, 8, 32, 64, 10)[training]
	p.arrange()
	uses := usesOf(t, p)
	n := 0
	for i, w := range p.waits() {
		if w < 0 {
			continue
		}
		n++
		waits := p.waits()
		waits[i] = -1
		if len(races(p, uses, waits)) == 0 {
			t.Errorf("launch %d, %s, need not wait for %d, %s", i, p.launches[i].kernel, w, p.launches[w].kernel)
		}
	}
	if n == 0 {
		t.Error("no launch waits for another branch")
	}
}

// kernelPattern finds the name of a kernel and the threads of its block.
var kernelPattern = regexp.MustCompile(`KERNEL(?:_FOR)?\((\w+?)(?:_?##\w+)*, \w+, (\d+)[,)]`)

// TestLaunchesAreLegal holds every launch to the limits of any device, and its
// kernel to the code that is there.
func TestLaunchesAreLegal(t *testing.T) {
	threads := map[string]int{} // of a block, at most
	sources, err := filepath.Glob("kernels/*.cu")
	if err != nil || len(sources) == 0 {
		t.Fatal("no kernels", err)
	}
	for _, name := range sources {
		for _, m := range kernelPattern.FindAllStringSubmatch(read(t, name), -1) {
			var n int
			fmt.Sscan(m[2], &n)
			threads[m[1]] = n
		}
	}
	stem := func(kernel string) string {
		if s := strings.TrimRight(kernel, "0123456789"); strings.HasSuffix(s, "_co") || strings.HasSuffix(s, "_x") {
			return s
		}
		if _, ok := threads[kernel]; ok {
			return kernel
		}
		return kernel[:strings.LastIndex(kernel, "_")]
	}
	for _, s := range systems {
		for _, p := range newPlans(t, s.system, s.layout, s.depth, s.side, s.batch, 10) {
			for _, l := range append(p.launches, p.exchange(), p.makePrecise()) {
				most, ok := threads[stem(l.kernel)]
				n := l.block[0] * l.block[1] * l.block[2]
				switch {
				case !ok:
					t.Errorf("%s: no such kernel", l.kernel)
				case n < 1 || n > most || n%32 != 0:
					t.Errorf("%s: %s has blocks of %d threads, at most %d", s.system, l.kernel, n, most)
				case l.grid[0] < 1 || l.grid[1] < 1 || l.grid[2] < 1 || l.grid[1] > 65535 || l.grid[2] > 65535:
					t.Errorf("%s: %s has a grid of %v", s.system, l.kernel, l.grid)
				case l.shared > 48<<10:
					t.Errorf("%s: %s wants %d bytes of shared memory", s.system, l.kernel, l.shared)
				}
				for _, file := range codeFiles(moduleOf(l.kernel)) {
					if !slices.Contains(entries(t, file), l.kernel) {
						t.Errorf("%s is not in %s", l.kernel, file)
					}
				}
			}
		}
	}
}

// codeFiles are the files of a module's code.
func codeFiles(module string) []string {
	list := []string{"kernels/ptx/" + module + ".ptx.gz"}
	for _, m := range machines {
		list = append(list, "kernels/cubin/"+m+"/"+module+".cubin.gz")
	}
	return list
}

var entriesOf = map[string][]string{}

// entries lists the kernels of a module's code.
func entries(t *testing.T, file string) []string {
	t.Helper()
	if list, ok := entriesOf[file]; ok {
		return list
	}
	z, err := gzip.NewReader(strings.NewReader(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{""}
	if strings.HasSuffix(file, ".cubin.gz") {
		list = append(list, machineEntries(t, file, text)...)
	}
	for _, m := range regexp.MustCompile(`\.entry (\w+)\(`).FindAllSubmatch(text, -1) {
		list = append(list, string(m[1]))
	}
	entriesOf[file] = list
	return list
}

// machineEntries lists the kernels of machine code, an ELF file, which must be for the
// device that the file's folder names. The standard library does not read NVIDIA's.
func machineEntries(t *testing.T, file string, image []byte) (list []string) {
	t.Helper()
	const machineAt, flagsAt, nvidia = 18, 48, 190
	machine, sm := binary.LittleEndian.Uint16(image[machineAt:]), fmt.Sprintf("sm_%d", image[flagsAt])
	if !bytes.HasPrefix(image, []byte("\x7fELF")) || machine != nvidia || sm != filepath.Base(filepath.Dir(file)) {
		t.Errorf("%s is for machine %d, %s", file, machine, sm)
	}
	for _, m := range regexp.MustCompile(`\x00\.text\.(\w+)`).FindAllSubmatch(image, -1) {
		list = append(list, string(m[1]))
	}
	return list
}

// TestMachines compares the devices that have machine code with the folders of it.
func TestMachines(t *testing.T) {
	folders, err := filepath.Glob("kernels/cubin/sm_*")
	if err != nil {
		t.Fatal(err)
	}
	for i := range folders {
		folders[i] = filepath.Base(folders[i])
	}
	if !slices.Equal(folders, machines) {
		t.Errorf("machine code of %v, the program names %v", folders, machines)
	}
}

func TestArithmeticIsOfTheCodeThatRuns(t *testing.T) {
	for capability, want := range map[string]string{
		"sm_70": "cuda sm_70 (driver 12.4)", "sm_75": "cuda sm_75 (driver 12.4)",
		"sm_80": "cuda sm_80 (ptxas 11.8)", "sm_86": "cuda sm_80 (ptxas 11.8)", "sm_89": "cuda sm_80 (ptxas 11.8)",
		"sm_90": "cuda sm_90 (ptxas 11.8)", "sm_100": "cuda sm_100 (driver 12.4)", "sm_120": "cuda sm_120 (driver 12.4)",
	} {
		info := Info{Capability: capability, Driver: "CUDA 12.4"}
		if got := info.Arithmetic(); got != want || !info.Supported() {
			t.Errorf("%s has %q, want %q", capability, got, want)
		}
	}
	for _, old := range []string{"sm_61", "sm_35"} {
		if (Info{Capability: old}).Supported() {
			t.Errorf("%s is supported", old)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestCodeIsOfTheseSources fails where a kernel changed and kernels/build.sh did
// not run.
func TestCodeIsOfTheseSources(t *testing.T) {
	var all bytes.Buffer
	for _, pattern := range []string{"kernels/*.cu", "kernels/*.h"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		for _, name := range names {
			all.WriteString(read(t, name))
		}
	}
	sum := sha256.Sum256(all.Bytes())
	if want := strings.TrimSpace(read(t, "kernels/ptx/SOURCES")); hex.EncodeToString(sum[:]) != want {
		t.Error("the kernels changed: run trainer/gpu/kernels/build.sh")
	}
}

// structs are the structures of args.h as Go has them.
var structs = map[string]any{"igc_step": stepArgs{}, "igc_conv": convArgs{}, "igc_weight_grad": weightGradArgs{}, "igc_norm": normArgs{},
	"igc_measured": measuredArgs{}, "igc_affine": affine{}, "igc_running": runningArgs{},
	"igc_unit": unitArgs{}, "igc_sum": sumArgs{}, "igc_state": state{}, "igc_show": show{},
	"igc_batch": batchArgs{}, "igc_repack": repackArgs{},
	"igc_head": headArgs{}, "igc_segment": segment{}, "igc_rates": graph.Rates{}, "igc_update": updateArgs{},
	"igc_exchange": exchangeArgs{}, "igc_branches": branchesArgs{}, "igc_finish": finishArgs{}}

// TestStepsDivide holds the multiplication by which the kernels divide, in conv.h, to the division.
func TestStepsDivide(t *testing.T) {
	for by := 1; by < 1<<15; by += 1 + by/64 {
		s := stepOf(by)
		for _, q := range []int{0, 1, 2, 3, 63, 64, 65535 / by} {
			for _, g := range []int{max(q*by-1, 0), q * by, q*by + by - 1} {
				if got := int(2 * uint64(g) * uint64(s.inverse) >> 32); g <= 65535 && got != g/by {
					t.Fatalf("%d/%d is %d, the kernels have %d", g, by, g/by, got)
				}
			}
		}
	}
}

// argsOfKernels finds the structures of args.h: their fields and their name.
func argsOfKernels(t *testing.T) [][]string {
	t.Helper()
	text := regexp.MustCompile(`//.*`).ReplaceAllString(read(t, "kernels/args.h"), "")
	return regexp.MustCompile(`(?s)typedef struct \{(.*?)\} (\w+);`).FindAllStringSubmatch(text, -1)
}

// TestArgumentsHaveTheLayoutOfTheKernels compares every structure with what the C
// compiler makes of args.h.
func TestArgumentsHaveTheLayoutOfTheKernels(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler cc")
	}
	found := argsOfKernels(t)
	if len(found) != len(structs) {
		t.Errorf("args.h has %d structures, Go %d", len(found), len(structs))
	}
	program := "#include \"args.h\"\n#include <stdio.h>\n#include <stddef.h>\nint main(void) {\n"
	var want []string
	for _, s := range found {
		name := s[2]
		program += fmt.Sprintf("printf(\"%s %%zu\\n\", sizeof(%s));\n", name, name)
		for _, line := range strings.Split(s[1], ";") {
			line = regexp.MustCompile(`PTR\([^)]*\)`).ReplaceAllString(line, "T")
			words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n,*", r) })
			if len(words) == 0 {
				continue
			}
			skip := 1
			for words[skip-1] == "long" && words[skip] == "long" || words[skip-1] == "signed" {
				skip++
			}
			for _, field := range words[skip:] {
				program += fmt.Sprintf("printf(\"%s %%zu\\n\", offsetof(%s, %s));\n", field, name, field)
			}
		}
		v, ok := structs[name]
		if !ok {
			t.Errorf("no Go structure for %s", name)
			continue
		}
		typ := reflect.TypeOf(v)
		want = append(want, fmt.Sprintf("%s %d", name, typ.Size()))
		for i := range typ.NumField() {
			want = append(want, fmt.Sprintf("%s %d", typ.Field(i).Name, typ.Field(i).Offset))
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/layout.c", []byte(program+"return 0; }\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-Ikernels", "-o", dir+"/layout", dir+"/layout.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(dir + "/layout").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got) || i >= len(want):
			t.Fatalf("C has %d fields, Go %d", len(got), len(want))
		case bare(got[i]) != bare(want[i]) && !strings.HasPrefix(want[i], "_ ") &&
			!strings.HasPrefix(got[i], "unused "):
			t.Errorf("C has %q, Go has %q", got[i], want[i])
		}
	}
}

// bare is a name as both languages write it.
func bare(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

// TestEncode puts addresses in the place of buffers, also of parts of others.
func TestEncode(t *testing.T) {
	whole := &buffer{name: "whole", addr: 1000}
	raw := encode(&sumArgs{len: 7, to: whole, a: whole.at(3, 1, 4)})
	var got [4]uint64
	for i := range got {
		got[i] = *(*uint64)(unsafe.Pointer(&raw[8*i]))
	}
	if want := [4]uint64{7, 1000, 1012, 0}; got != want {
		t.Errorf("encoded %v, want %v", got, want)
	}
}

// TestConvChoice shows how a convolution's work is cut.
func TestConvChoice(t *testing.T) {
	pair := func(l, m int) kernel.Geometry {
		return kernel.Geometry{H: 32, W: 32, KH: 3, KW: 3, Stride: 1, L: l, Ci: m, Co: m,
			StepIn: 1, StepOut: 1, Mixes: []kernel.Mix{{K: l, Step: m}}}
	}
	for _, c := range []struct {
		c    channels
		want string
	}{
		{factorsOf(pair(40, 2))[0], "conv3x3_normal_co2"},
		{factorsOf(pair(40, 2))[1], "conv1x1_normal_co8"},
		{factorsOf(pair(3, 13))[0], "conv3x3_normal_co7"},
		{factorsOf(pair(1, 23))[0], "conv3x3_normal_co8"},
		{factorsOf(pair(41, 5))[1], "conv1x1_normal_co7"},
		{factorsOf(pair(1, 23))[1], "conv1x1_normal_co1"},
		{channels{h: 8, w: 8, oh: 8, ow: 8, groups: 1, ci: 3, co: 3, kh: 7, kw: 7, stride: 2}, "conv_any_normal"},
	} {
		if got := chooseConv(c.c, normal); got.kernel != c.want {
			t.Errorf("%+v: %s, want %s", c.c, got.kernel, c.want)
		}
	}
}

// TestStepsOfFigure3 fixes what a step of four networks of Figure 3 takes, batch 64,
// 100 classes: docs/gpu.md has the same table.
func TestStepsOfFigure3(t *testing.T) {
	for _, c := range []struct {
		system string
		want   string
	}{
		{"IGC-L40M2", "47 launches, 14 beside, 1938 MB of traffic, 348 MB of memory"},
		{"IGC-L5M10", "47 launches, 14 beside, 1219 MB of traffic, 220 MB of memory"},
		{"IGC-L1M23", "47 launches, 14 beside, 562 MB of traffic, 102 MB of memory"},
		{"IGC-L64M1", "47 launches, 14 beside, 1554 MB of traffic, 280 MB of memory"},
	} {
		p := newPlans(t, c.system, space.Flat, 8, 32, 64, 100)[training]
		memory := p.arrange()
		beside := 0
		for _, l := range p.launches {
			beside += int(flag(l.aside))
		}
		if got := fmt.Sprintf("%d launches, %d beside, %d MB of traffic, %d MB of memory", len(p.launches), beside,
			p.traffic()>>20, memory>>20); got != c.want {
			t.Errorf("%s: %s, want %s", c.system, got, c.want)
		}
		if count := fmt.Sprintf("${launches:-%d}", len(p.launches)); !strings.Contains(read(t, "verify.sh"), count) {
			t.Errorf("%s: verify.sh does not count %d launches", c.system, len(p.launches))
		}
	}
}

// TestConvolutionsLeaveNoMultiprocessorIdle is for pairs of Figure 3 (a) and (b) on a
// device of 132 multiprocessors, an H200, at batch 64. With -v it shows the waves of each
// convolution: how often its blocks fill the device with those that run at once, as
// registers and threads allow.
func TestConvolutionsLeaveNoMultiprocessorIdle(t *testing.T) {
	const multiprocessors = 132
	registers := map[string]int{} // of a thread, on sm_90
	for _, line := range strings.Split(read(t, "kernels/resources.txt"), "\n") {
		if _, second, ok := strings.Cut(line, "|"); ok && !strings.HasPrefix(line, "#") {
			var n int
			fmt.Sscan(second, &n)
			registers[strings.Fields(line)[0]] = n
		}
	}
	for _, pair := range []string{"L1M23", "L5M10", "L12M6", "L24M3", "L40M2", "L64M1", "L1M44", "L12M12", "L85M2", "L128M1"} {
		seen := map[string]bool{}
		p := newPlans(t, "IGC-"+pair, space.Flat, 8, 32, 64, 10)[0]
		for _, l := range p.launches {
			if !strings.HasPrefix(l.kernel, "conv") || l.args.(*convArgs).x == p.x || seen[l.kernel] {
				continue // the first convolution, which all networks have, is small
			}
			seen[l.kernel] = true
			blocks, threads := l.grid[0]*l.grid[1]*l.grid[2], l.block[0]*l.block[1]
			if registers[l.kernel] == 0 {
				t.Fatalf("resources.txt has no registers of %s", l.kernel)
			}
			atOnce := 65536 / (threads * ceil(registers[l.kernel], 8) * 8)
			t.Logf("%-6s %-22s %5d blocks of %3d threads, %2d at once: %.2f waves", pair, l.kernel, blocks, threads,
				atOnce, float64(blocks)/float64(multiprocessors*atOnce))
			if blocks < multiprocessors {
				t.Errorf("%s: %s has %d blocks for %d multiprocessors", pair, l.kernel, blocks, multiprocessors)
			}
		}
	}
}
