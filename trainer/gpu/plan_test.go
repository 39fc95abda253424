package gpu

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
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
}

func newPlans(t *testing.T, name string, layout space.Layout, depth, side, batch, classes int) []*plan {
	t.Helper()
	s, err := space.ParseSystem(name)
	if err != nil {
		t.Fatal(err)
	}
	net, err := s.Network(space.Plan{Layout: layout, Depth: depth, In: space.Shape{C: 3, H: side, W: side},
		Classes: classes})
	if err != nil {
		t.Fatal(err)
	}
	m, err := graph.New(net, batch, graph.Options{Threads: 1, Average: true, Precise: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	var plans []*plan
	tensors, state := newTensors(m), kept("state", 32)
	for _, purpose := range []purpose{training, evaluating, measuring} {
		p := newPlan(tensors, m, batch, purpose, state, func(p *plan) {
			p.rows("repack", side, 3, &repackArgs{c: 3, h: int32(side), w: int32(side), n: int32(batch),
				from: kept("from", 4), x: p.x})
		})
		if purpose == training {
			p.update(0.9, 1e-4, kept("segments", 0), kept("rates", 8))
		}
		p.finish(kept("losses", 8), kept("corrects", 4))
		plans = append(plans, p)
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

// kernelPattern finds the name of a kernel and the threads of its block.
var kernelPattern = regexp.MustCompile(`KERNEL(?:_FOR)?\((\w+?)(?:##CO)?(?:_##CO##x##CI)?, \w+, (\d+)[,)]`)

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
		if s := strings.TrimRight(kernel, "0123456789"); strings.HasSuffix(s, "_co") {
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
				case !slices.Contains(entries(t, moduleOf(l.kernel)), l.kernel):
					t.Errorf("%s is not in %s.ptx.gz", l.kernel, moduleOf(l.kernel))
				}
			}
		}
	}
}

var entriesOf = map[string][]string{}

// entries lists the kernels of a module.
func entries(t *testing.T, module string) []string {
	t.Helper()
	if list, ok := entriesOf[module]; ok {
		return list
	}
	z, err := gzip.NewReader(strings.NewReader(read(t, "kernels/ptx/"+module+".ptx.gz")))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{""}
	for _, m := range regexp.MustCompile(`\.entry (\w+)\(`).FindAllSubmatch(text, -1) {
		list = append(list, string(m[1]))
	}
	entriesOf[module] = list
	return list
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

// TestArgumentsHaveTheLayoutOfTheKernels compares every structure with what the C
// compiler makes of args.h.
func TestArgumentsHaveTheLayoutOfTheKernels(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler cc")
	}
	structs := map[string]any{"igc_conv": convArgs{}, "igc_weight_grad": weightGradArgs{}, "igc_norm": normArgs{},
		"igc_measured": measuredArgs{}, "igc_norm_grad": normGradArgs{},
		"igc_unit": unitArgs{}, "igc_sum": sumArgs{}, "igc_state": state{}, "igc_show": show{},
		"igc_batch": batchArgs{}, "igc_repack": repackArgs{},
		"igc_head": headArgs{}, "igc_segment": segment{}, "igc_rates": graph.Rates{}, "igc_update": updateArgs{},
		"igc_exchange": exchangeArgs{}, "igc_branches": branchesArgs{}, "igc_finish": finishArgs{}}
	text := regexp.MustCompile(`//.*`).ReplaceAllString(read(t, "kernels/args.h"), "")
	found := regexp.MustCompile(`(?s)typedef struct \{(.*?)\} (\w+);`).FindAllStringSubmatch(text, -1)
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
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, "_", "")) }
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got) || i >= len(want):
			t.Fatalf("C has %d fields, Go %d", len(got), len(want))
		case plain(got[i]) != plain(want[i]) && !strings.HasPrefix(want[i], "_ ") &&
			!strings.HasPrefix(got[i], "unused "):
			t.Errorf("C has %q, Go has %q", got[i], want[i])
		}
	}
}

// TestEncode puts addresses in the place of buffers, also of parts of others.
func TestEncode(t *testing.T) {
	whole := &buffer{name: "whole", addr: 1000}
	raw := encode(&sumArgs{len: 7, to: whole, a: whole.at(3, 4)})
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
		return kernel.Geometry{H: 32, W: 32, KH: 3, KW: 3, Stride: 1, L: l, Ci: m, Co: m, Secondary: true}
	}
	for _, c := range []struct {
		c    channels
		want string
	}{
		{primaryOf(pair(40, 2)), "conv3x3_normal_co2"},
		{secondaryOf(pair(40, 2)), "conv1x1_normal_co8"},
		{primaryOf(pair(3, 13)), "conv3x3_normal_co7"},
		{primaryOf(pair(1, 23)), "conv3x3_normal_co8"},
		{secondaryOf(pair(41, 5)), "conv1x1_normal_co7"},
		{secondaryOf(pair(1, 23)), "conv1x1_normal_co1"},
		{channels{h: 8, w: 8, oh: 8, ow: 8, groups: 1, ci: 3, co: 3, kh: 7, kw: 7, stride: 2}, "conv_any_normal"},
	} {
		if got := chooseConv(c.c, normal); got.kernel != c.want {
			t.Errorf("%+v: %s, want %s", c.c, got.kernel, c.want)
		}
	}
}
