package interchange_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"igcsearch/space"
	"igcsearch/trainer/interchange"
	"igcsearch/trainer/interchange/onnx"
)

// array is a tensor of an ONNX graph as the evaluator below computes it.
type array struct {
	shape []int
	data  []float64
}

func newArray(shape ...int) array {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return array{shape, make([]float64, n)}
}

// positions returns the pictures, channels and positions of (N, C, …).
func (a array) positions() (n, c, hw int) {
	return a.shape[0], a.shape[1], len(a.data) / a.shape[0] / a.shape[1]
}

// evaluator computes an ONNX graph in float64, by plain loops as the descriptions of the operators say
// (https://onnx.ai/onnx/operators, version 13 of the operators). It knows those that WriteONNX uses.
type evaluator struct {
	t      *testing.T
	values map[string]array
}

func (e *evaluator) run(node *onnx.NodeProto) array {
	in := func(i int) array {
		a, ok := e.values[node.Input[i]]
		if !ok {
			e.t.Fatalf("node %s reads %s, which no node before it gives", node.GetName(), node.Input[i])
		}
		return a
	}
	attributes := map[string]*onnx.AttributeProto{}
	for _, a := range node.Attribute {
		attributes[a.GetName()] = a
	}
	x := in(0)
	switch node.GetOpType() {
	case "Conv":
		strides, pads := attributes["strides"].Ints, attributes["pads"].Ints
		return e.conv(x, in(1), int(attributes["group"].GetI()), int(strides[0]), int(pads[0]), int(pads[1]))
	case "BatchNormalization":
		out, scale, shift, mean, variance := newArray(x.shape...), in(1), in(2), in(3), in(4)
		n, c, hw := x.positions()
		for i := range n * c * hw {
			k := i / hw % c
			out.data[i] = scale.data[k]*(x.data[i]-mean.data[k])/
				math.Sqrt(variance.data[k]+float64(attributes["epsilon"].GetF())) + shift.data[k]
		}
		return out
	case "Relu":
		out := newArray(x.shape...)
		for i, v := range x.data {
			out.data[i] = max(v, 0)
		}
		return out
	case "Add":
		out, y := newArray(x.shape...), in(1)
		if !slices.Equal(x.shape, y.shape) {
			e.t.Fatalf("node %s adds %v and %v", node.GetName(), x.shape, y.shape)
		}
		for i, v := range x.data {
			out.data[i] = v + y.data[i]
		}
		return out
	case "Gather":
		if attributes["axis"].GetI() != 1 {
			e.t.Fatalf("node %s does not gather channels", node.GetName())
		}
		order := in(1)
		out := newArray(append([]int{x.shape[0], len(order.data)}, x.shape[2:]...)...)
		n, c, hw := out.positions()
		for i := range n * c * hw {
			out.data[i] = x.data[(i/hw/c*x.shape[1]+int(order.data[i/hw%c]))*hw+i%hw]
		}
		return out
	case "MaxPool":
		return e.maxPool(x)
	case "GlobalAveragePool":
		n, c, hw := x.positions()
		out := newArray(n, c, 1, 1)
		for i, v := range x.data {
			out.data[i/hw] += v / float64(hw)
		}
		return out
	case "Flatten":
		n, c, hw := x.positions()
		return array{[]int{n, c * hw}, x.data}
	case "Gemm":
		if attributes["transB"].GetI() != 1 {
			e.t.Fatalf("node %s does not transpose its weights", node.GetName())
		}
		weight, bias := in(1), in(2)
		out := newArray(x.shape[0], weight.shape[0])
		for i := range out.data {
			n, k := i/weight.shape[0], i%weight.shape[0]
			out.data[i] = bias.data[k]
			for c := range x.shape[1] {
				out.data[i] += x.data[n*x.shape[1]+c] * weight.data[k*x.shape[1]+c]
			}
		}
		return out
	}
	e.t.Fatalf("node %s: no operator %s here", node.GetName(), node.GetOpType())
	return array{}
}

func (e *evaluator) conv(x, w array, groups, stride, padY, padX int) array {
	n, c, h, wide := x.shape[0], x.shape[1], x.shape[2], x.shape[3]
	out, ci, kh, kw := w.shape[0], w.shape[1], w.shape[2], w.shape[3]
	if ci*groups != c || out%groups != 0 {
		e.t.Fatalf("a convolution of %d channels in %d partitions has weights %v", c, groups, w.shape)
	}
	z := newArray(n, out, (h+2*padY-kh)/stride+1, (wide+2*padX-kw)/stride+1)
	for i := range z.data {
		at := i / z.shape[3] / z.shape[2]
		o, picture, oy, ox := at%out, at/out, i/z.shape[3]%z.shape[2], i%z.shape[3]
		first := o / (out / groups) * ci
		for k := range ci * kh * kw {
			y, xx := oy*stride-padY+k/kw%kh, ox*stride-padX+k%kw
			if y >= 0 && y < h && xx >= 0 && xx < wide {
				z.data[i] += w.data[o*ci*kh*kw+k] * x.data[((picture*c+first+k/kw/kh)*h+y)*wide+xx]
			}
		}
	}
	return z
}

// maxPool has the size, stride and padding of the only max pool that our networks have.
func (e *evaluator) maxPool(x array) array {
	h, w := x.shape[2], x.shape[3]
	out := newArray(x.shape[0], x.shape[1], (h-1)/2+1, (w-1)/2+1)
	for i := range out.data {
		oh, ow := out.shape[2], out.shape[3]
		plane, best := i/ow/oh, math.Inf(-1)
		for k := range 9 {
			y, xx := 2*(i/ow%oh)-1+k/3, 2*(i%ow)-1+k%3
			if y >= 0 && y < h && xx >= 0 && xx < w {
				best = max(best, x.data[(plane*h+y)*w+xx])
			}
		}
		out.data[i] = best
	}
	return out
}

// evaluate returns the scores of an ONNX file for pictures x of the given shape.
func evaluate(t *testing.T, file *onnx.ModelProto, x []float32, shape []int) []float64 {
	e := evaluator{t, map[string]array{}}
	for _, c := range file.Graph.Initializer {
		var shape []int
		for _, d := range c.Dims {
			shape = append(shape, int(d))
		}
		a := newArray(shape...)
		for i := range a.data {
			if onnx.TensorProto_DataType(c.GetDataType()) == onnx.TensorProto_INT64 {
				a.data[i] = float64(int64(binary.LittleEndian.Uint64(c.RawData[8*i:])))
			} else {
				a.data[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(c.RawData[4*i:])))
			}
		}
		e.values[c.GetName()] = a
	}
	in := newArray(shape...)
	for i, v := range x {
		in.data[i] = float64(v)
	}
	e.values[file.Graph.Input[0].GetName()] = in
	for _, node := range file.Graph.Node {
		if _, again := e.values[node.Output[0]]; again {
			t.Fatalf("two values have the name %s", node.Output[0])
		}
		e.values[node.Output[0]] = e.run(node)
	}
	return e.values[file.Graph.Output[0].GetName()].data
}

func writeONNX(t *testing.T, m interchange.Model) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := m.WriteONNX(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestONNX: the nodes of a file compute the scores that our kernels do, by the definitions of ONNX.
func TestONNX(t *testing.T) {
	for i, c := range networks {
		t.Run(c.name+" "+string(c.layout), func(t *testing.T) {
			n := build(t, i)
			text := writeONNX(t, n.Model)
			if again := writeONNX(t, n.Model); !bytes.Equal(text, again) {
				t.Error("twice the same gives other bytes")
			}
			var file onnx.ModelProto
			if err := proto.Unmarshal(text, &file); err != nil {
				t.Fatal(err)
			}
			if got := file.OpsetImport[0].GetVersion(); file.GetIrVersion() != 7 || got != 13 {
				t.Errorf("format %d, operators %d", file.GetIrVersion(), got)
			}
			about := map[string]string{}
			for _, p := range file.MetadataProps {
				about[p.GetKey()] = p.GetValue()
			}
			if !maps.Equal(about, n.About()) {
				t.Errorf("its metadata is %v, want %v", about, n.About())
			}
			got, want := evaluate(t, &file, n.x, []int{pictures, 3, c.side, c.side}), make([]float64, len(n.scores))
			for i, v := range n.scores {
				want[i] = float64(v)
			}
			if d := difference(got, want); !(d < 1e-5) {
				t.Errorf("the scores differ from ours by %.1e of their root mean square", d)
			}
		})
	}
}

// TestONNXRefuses: a model that lacks a tensor, or has another network's, is not written.
func TestONNXRefuses(t *testing.T) {
	n := build(t, 0)
	lacking := n.Model
	lacking.Tensors = n.Tensors[1:]
	other := n.Model
	other.Network = space.Figure3(space.Pair{L: 2, M: 4}, 3, space.Shape{C: 3, H: 9, W: 9}, classes)
	for want, m := range map[string]interchange.Model{
		"layer conv0: the tensor conv0.weight is missing":                          lacking,
		"the tensor block1.primary.weight has the shape [8 2 3 3], want [8 4 3 3]": other,
	} {
		err := m.WriteONNX(&bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestONNXRuntime: where node finds the package onnxruntime-node (its folder node_modules is in NODE_PATH), it loads the
// files and gives our scores.
func TestONNXRuntime(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("node", "-e", "require('onnxruntime-node')").CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		t.Skipf("node has no onnxruntime-node (npm install --ignore-scripts onnxruntime-node; NODE_PATH): %v %s", err, first)
	}
	dir := t.TempDir()
	args := []string{"testdata/run_onnx.js"}
	for i, c := range networks {
		n := build(t, i)
		path := filepath.Join(dir, strings.ReplaceAll(c.name, "/", "_")+" "+string(c.layout))
		given, err := json.Marshal(map[string]any{"shape": []int{pictures, 3, c.side, c.side}, "pictures": n.x})
		if err != nil {
			t.Fatal(err)
		}
		for ext, text := range map[string][]byte{".onnx": writeONNX(t, n.Model), ".json": given} {
			if err := os.WriteFile(path+ext, text, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		args = append(args, path)
	}
	c := exec.Command("node", args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var scores [][]float32
	if err := json.Unmarshal(out, &scores); err != nil {
		t.Fatal(err)
	}
	worst := 0.
	for i, c := range networks {
		d := difference(scores[i], build(t, i).scores)
		if worst = max(worst, d); !(d < 1e-5) {
			t.Errorf("%s: the runtime's scores differ by %.1e of the root mean square", c.name, d)
		}
	}
	t.Logf("%d models, largest difference %.1e of the root mean square", len(scores), worst)
}
