package interchange_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/sbinet/npyio/npz"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/interchange"
	"igcsearch/trainer/kernel"
)

var update = flag.Bool("update", false, "rewrite the golden modules and, by PyTorch, testdata/scores.json")

// networks has one of each kind.
var networks = []struct {
	name   string
	layout space.Layout
	depth  int
	side   int    // of the pictures
	golden string // the file in testdata with its module; "" if there is none
}{
	{"IGC-L4M2", space.Flat, 5, 9, "igc.py"},
	{"IGC-L4M3", space.Stages, 8, 9, ""},
	{"IGC-L6M1", space.Flat, 4, 6, ""},
	{"IGC-L1M5", space.Flat, 4, 6, ""},
	{"RegConv-W6", space.Stages, 5, 8, "regconv.py"},
	{"SumFusion", space.Stages, 5, 8, "fusion.py"},
	{"IGC-L4M2/L2M8/L8M3", space.Stages, 8, 8, ""},
	{"IGC-L4M2+Swap", space.Stages, 5, 8, "swap.py"},
	{"IGC-L4M2+Proj", space.Stages, 5, 8, ""},
	{"IGC-L4M2+1x3", space.Stages, 5, 9, "1x3.py"},
	{"IGC-L4M2+5x5", space.Stages, 5, 8, ""},
	{"IGC-L4M2+ReLU", space.Stages, 5, 8, "relu.py"},
	{"IGC-L4M4+B2", space.Stages, 5, 8, ""},
	{"IGC-L4M2+Ident.", space.Flat, 6, 6, ""},
	{"IGC-L4M2+Ident.+1x3", space.Stages, 8, 9, ""},
	{"IGC-L4M2+Ident.+ReLU", space.Stages, 8, 8, ""},
	{"IGC-L4M2+Ident.+Swap", space.Stages, 8, 8, ""},
	{"RegConv-W6+Ident.", space.Stages, 8, 9, ""},
	{"ResNet-C6", space.ImageNet, 10, 33, ""},
	{"IGC-L4M2+Ident.", space.ImageNet, 10, 40, "imagenet.py"},
	{"IGC-L4M2+Ident.+2L", space.ImageNet, 10, 48, ""},
	{"IGC-L4M2+1x1", space.Stages, 5, 8, ""},
	{"IGCV2-M1K3K4", space.Stages, 5, 8, "igcv2.py"},
	{"IGCV2-M2K2K3K2", space.Flat, 4, 6, ""},
	{"IGCV2-M2K2K3+Ident.", space.Stages, 8, 8, ""},
	{"Monarch-M3", space.Stages, 5, 8, ""},
	{"IGCV3-W8R2G2", space.Stages, 8, 8, "igcv3.py"},
	{"IGCV3-W8R2G2x4", space.Flat, 4, 6, ""},
	{"RegNetX-W8G4", space.Stages, 5, 8, ""},
	{"ShuffleNet-W16G2", space.Stages, 5, 8, ""},
}

// pictures is how many a test gives to a network.
const pictures, classes = 5, 3

// formula makes n numbers in [−1, 1): the high bits of a multiplicative hash.
func formula(tag, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		u := uint32(uint64(i)*2654435761 + uint64(tag)*40503 + 12345)
		out[i] = float32(u>>8)/(1<<23) - 1
	}
	return out
}

// network is a network with tensors by a formula, some pictures, and their scores by our kernels.
type network struct {
	interchange.Model
	x      []float32 // (pictures, C, H, W)
	scores []float32 // (pictures, classes)
}

// build makes network i.
func build(t *testing.T, i int) network {
	t.Helper()
	c := networks[i]
	s, err := space.ParseSystem(c.name)
	if err != nil {
		t.Fatal(err)
	}
	plan := space.Plan{Layout: c.layout, Depth: c.depth, In: space.Shape{C: 3, H: c.side, W: c.side}, Classes: classes}
	n, err := s.Network(plan)
	if err != nil {
		t.Fatal(err)
	}
	isa, err := kernel.Detect()
	if err != nil {
		t.Fatal(err)
	}
	m, err := graph.New(n, pictures, graph.Options{ISA: isa, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	net := network{x: formula(1000, pictures*3*c.side*c.side)}
	net.Network, net.Plan = n, plan
	net.Origin = interchange.Origin{Study: "tiny", Seed: 1, Epoch: 2, Classes: []string{"a", "b", "ç"},
		Mean: []float32{0.5, 0.1, 1. / 3}, Std: []float32{0.25, 1, 0.2}}
	add := func(name string, values []float32, shape ...int) {
		net.Tensors = append(net.Tensors, interchange.Tensor{Name: name, Shape: shape, Data: slices.Clone(values)})
	}
	for tag, p := range m.Params {
		// Of about the size that keeps activations near 1, whatever the fan-in.
		scale := float32(math.Sqrt(6 / float64(max(p.FanIn, 6))))
		for i, v := range formula(tag, len(p.Value)) {
			p.Value[i] = scale * v
			if len(p.Shape) == 1 && strings.HasSuffix(p.Name, ".weight") {
				p.Value[i] = 1 + v/4
			}
		}
		add(p.Name, p.Value, p.Shape...)
	}
	for tag, s := range m.Stats {
		for i, v := range formula(500+tag, len(s.Value)) {
			s.Value[i] = v / 2
			if strings.HasSuffix(s.Name, ".running_var") {
				s.Value[i] = 1 + v/2
			}
		}
		add(s.Name, s.Value, len(s.Value))
	}
	in, _ := m.Batch(pictures)
	kernel.Pack(in, net.x, pictures, 3, c.side, c.side)
	if _, err := m.Evaluate(); err != nil {
		t.Fatal(err)
	}
	net.scores = m.Logits(false)
	return net
}

// difference is the largest difference of two lists, as a part of the root mean square of want.
func difference[T float32 | float64](got, want []T) float64 {
	var worst, sq float64
	for i := range want {
		worst = max(worst, math.Abs(float64(got[i])-float64(want[i])))
		sq += float64(want[i]) * float64(want[i])
	}
	return worst / math.Sqrt(sq/float64(len(want)))
}

func module(t *testing.T, n network) string {
	t.Helper()
	var b strings.Builder
	if err := interchange.WritePyTorch(&b, n.Network, n.Plan); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestModules: the Python code of networks of each kind.
func TestModules(t *testing.T) {
	for i, c := range networks {
		if c.golden == "" {
			continue
		}
		t.Run(c.golden, func(t *testing.T) {
			text, path := module(t, build(t, i)), filepath.Join("testdata", c.golden)
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Errorf("another module than %s, which -update rewrites:\n%s", path, text)
			}
		})
	}
}

// recorded is what PyTorch computed of a module.
type recorded struct {
	SHA256 string    `json:"sha256"` // of the module's text
	Scores []float64 `json:"scores"` // (pictures, classes), in float64
}

// TestScoresOfPyTorch: a module printed here computes the scores that our kernels do. They were recorded by
// testdata/run_modules.py (PyTorch 1.13, float64), with the checksums of the modules that it ran, so this test needs no
// PyTorch. Where PyTorch is installed, TestPyTorch does the same anew.
func TestScoresOfPyTorch(t *testing.T) {
	if *update {
		recordScores(t)
	}
	raw, err := os.ReadFile("testdata/scores.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]recorded
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	for i, c := range networks {
		name := c.name + " " + string(c.layout)
		t.Run(name, func(t *testing.T) {
			n := build(t, i)
			want, ok := all[name]
			switch {
			case !ok:
				t.Fatal("not recorded: -update records it where PyTorch is installed")
			case want.SHA256 != sum(module(t, n)):
				t.Fatal("the module is not the one that PyTorch ran: -update runs it where PyTorch is installed")
			}
			got := make([]float64, len(n.scores))
			for i, v := range n.scores {
				got[i] = float64(v)
			}
			if d := difference(got, want.Scores); !(d < 1e-5) {
				t.Errorf("our scores differ from PyTorch's by %.1e of their root mean square", d)
			}
		})
	}
}

func sum(text string) string {
	b := sha256.Sum256([]byte(text))
	return hex.EncodeToString(b[:])
}

// python is an interpreter with PyTorch and numpy; the test is skipped where there is none.
func python(t *testing.T) string {
	t.Helper()
	const path = "/usr/bin/python3"
	if out, err := exec.Command(path, "-c", "import torch, numpy").CombinedOutput(); err != nil {
		t.Skipf("%s has no torch and numpy: %v %s", path, err, out)
	}
	return path
}

// files writes all networks into a folder, each as NAME.py, .npz, .safetensors and .json with its pictures, and
// returns their names.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	for i, c := range networks {
		n, name := build(t, i), strings.ReplaceAll(c.name, "/", "_")+" "+string(c.layout)
		var npz, safetensors bytes.Buffer
		if err := n.WriteNPZ(&npz); err != nil {
			t.Fatal(err)
		}
		if err := n.WriteSafetensors(&safetensors); err != nil {
			t.Fatal(err)
		}
		about, err := json.Marshal(map[string]any{"name": c.name + " " + string(c.layout), "about": n.About(),
			"shape": []int{pictures, 3, c.side, c.side}, "pictures": n.x})
		if err != nil {
			t.Fatal(err)
		}
		for ext, text := range map[string][]byte{".py": []byte(module(t, n)), ".npz": npz.Bytes(),
			".safetensors": safetensors.Bytes(), ".json": about} {
			if err := os.WriteFile(filepath.Join(dir, name+ext), text, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		names = append(names, filepath.Join(dir, name))
	}
	return names
}

// runModules runs testdata/run_modules.py on the files of all networks and returns what it computed.
func runModules(t *testing.T, python string) map[string]recorded {
	t.Helper()
	c := exec.Command(python, append([]string{"testdata/run_modules.py"}, files(t, t.TempDir())...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	t.Logf("%s", stderr.String())
	var all map[string]recorded
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func recordScores(t *testing.T) {
	raw, err := json.MarshalIndent(runModules(t, python(t)), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/scores.json", append(raw, '\n'), 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestPyTorch: where PyTorch is installed, modules take the tensors of both files strictly, and their scores in
// float32 and float64 are those of our kernels.
func TestPyTorch(t *testing.T) {
	t.Parallel()
	all := runModules(t, python(t))
	for i, c := range networks {
		n := build(t, i)
		got, ok := all[c.name+" "+string(c.layout)]
		if !ok || got.SHA256 != sum(module(t, n)) {
			t.Fatalf("%s: the script ran another module", c.name)
		}
		want := make([]float64, len(n.scores))
		for i, v := range n.scores {
			want[i] = float64(v)
		}
		if d := difference(got.Scores, want); !(d < 1e-5) {
			t.Errorf("%s: PyTorch's scores differ by %.1e of the root mean square", c.name, d)
		}
	}
}

// readSafetensors reads as the format's description says, without the writer's
// code.
func readSafetensors(t *testing.T, b []byte) (shapes map[string][]int, values map[string][]float32,
	about map[string]string) {
	t.Helper()
	n := binary.LittleEndian.Uint64(b)
	if (8+n)%8 != 0 {
		t.Errorf("the values start at byte %d, which is not aligned", 8+n)
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(header["__metadata__"], &about); err != nil {
		t.Fatal(err)
	}
	delete(header, "__metadata__")
	data := b[8+n:]
	covered := 0
	shapes, values = map[string][]int{}, map[string][]float32{}
	for name, raw := range header {
		var place struct {
			Type    string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &place); err != nil || place.Type != "F32" {
			t.Fatalf("%s: %s: %v", name, raw, err)
		}
		for at := place.Offsets[0]; at < place.Offsets[1]; at += 4 {
			values[name] = append(values[name], math.Float32frombits(binary.LittleEndian.Uint32(data[at:])))
		}
		shapes[name] = place.Shape
		covered += place.Offsets[1] - place.Offsets[0]
	}
	if covered != len(data) {
		t.Errorf("the header places %d of %d bytes", covered, len(data))
	}
	return shapes, values, about
}

// TestSafetensors: the file reads back by other code than the writer's.
func TestSafetensors(t *testing.T) {
	n := build(t, 0)
	var a, b bytes.Buffer
	for _, w := range []*bytes.Buffer{&a, &b} {
		if err := n.WriteSafetensors(w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("twice the same gives other bytes")
	}
	shapes, values, about := readSafetensors(t, a.Bytes())
	if len(shapes) != len(n.Tensors) {
		t.Errorf("%d tensors of %d", len(shapes), len(n.Tensors))
	}
	for _, w := range n.Tensors {
		if !slices.Equal(shapes[w.Name], w.Shape) || !slices.Equal(values[w.Name], w.Data) {
			t.Errorf("%s differs", w.Name)
		}
	}
	want := map[string]string{
		"network": "IGC-L4M2", "depth": "5", "layout": "flat", "input": "[3,9,9]", "batch_norm_eps": "2e-05",
		"pytorch": "igcsearch model IGC-L4M2 --layout flat --depth 5 --classes 3 --size 9 --pytorch",
		"study":   "tiny", "seed": "1", "epoch": "2", "classes": `["a","b","ç"]`,
		"mean": "[0.5,0.1,0.33333334]", "std": "[0.25,1,0.2]",
	}
	if diff := cmp.Diff(want, about); diff != "" {
		t.Errorf("about (-want +got):\n%s", diff)
	}
}

// TestNPZ: the arrays have the tensors' names, shapes and values, and "about" is text.
func TestNPZ(t *testing.T) {
	n := build(t, 0)
	var b bytes.Buffer
	if err := n.WriteNPZ(&b); err != nil {
		t.Fatal(err)
	}
	file, err := npz.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if len(file.Keys()) != len(n.Tensors)+1 {
		t.Errorf("arrays %q, want %d and about", file.Keys(), len(n.Tensors))
	}
	for _, w := range n.Tensors {
		var got []float32
		if err := file.Read(w.Name+".npy", &got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, w.Data) || !slices.Equal(file.Header(w.Name+".npy").Descr.Shape, w.Shape) {
			t.Errorf("%s differs", w.Name)
		}
	}
	var text []byte
	if err := file.Read("about.npy", &text); err != nil {
		t.Fatal(err)
	}
	var about map[string]string
	if err := json.Unmarshal(text, &about); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(n.About(), about); diff != "" {
		t.Errorf("about (-want +got):\n%s", diff)
	}
}
