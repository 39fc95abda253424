package interchange

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/interchange/onnx"
)

// The versions that an ONNX file is written for: those of ONNX 1.8, of November 2020, which runtimes still read.
const (
	onnxIR        = onnx.Version_IR_VERSION_2020_5_8
	onnxOperators = 13
)

// maxONNXBytes is the size that a file of protocol buffers cannot reach.
const maxONNXBytes = math.MaxInt32

// WriteONNX writes the network as an ONNX model. Its input is "pictures" (N, C, H, W), for any N, normalised as the
// package says, and its output "scores" (N, classes). About is its metadata. The kernels of a summation fusion are added
// up into one, which has the same outputs. The error says so if a tensor is missing, or the file would be too large.
func (m Model) WriteONNX(w io.Writer) error {
	g := graphWriter{model: m, graph: &onnx.GraphProto{Name: proto.String(m.Network.Name)}, tensors: map[string]Tensor{},
		added: map[string]bool{}}
	size := 0
	for _, t := range m.Tensors {
		g.tensors[t.Name] = t
		size += 4 * len(t.Data)
	}
	if size >= maxONNXBytes {
		return fmt.Errorf("%s has %d bytes of parameters: an ONNX file holds at most 2 GiB", m.Network.Name, size)
	}
	for i, l := range m.Network.Layers {
		if err := g.layer(i, l); err != nil {
			return fmt.Errorf("%s: layer %s: %w", m.Network.Name, l.Name, err)
		}
	}
	in := m.Network.Input()
	g.graph.Input = []*onnx.ValueInfoProto{valueInfo("pictures", in.C, in.H, in.W)}
	g.graph.Output = []*onnx.ValueInfoProto{valueInfo("scores", m.Network.Classes)}
	file := &onnx.ModelProto{
		IrVersion: proto.Int64(int64(onnxIR)), ProducerName: proto.String("igcsearch"), Graph: g.graph,
		OpsetImport: []*onnx.OperatorSetIdProto{{Domain: proto.String(""), Version: proto.Int64(onnxOperators)}},
	}
	if m.Origin.Version != "" {
		file.ProducerVersion = proto.String(m.Origin.Version)
	}
	about := m.About()
	for _, key := range slices.Sorted(maps.Keys(about)) {
		file.MetadataProps = append(file.MetadataProps,
			&onnx.StringStringEntryProto{Key: proto.String(key), Value: proto.String(about[key])})
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(file)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// valueInfo describes an input or output (N, shape…) of the model.
func valueInfo(name string, shape ...int) *onnx.ValueInfoProto {
	dims := []*onnx.TensorShapeProto_Dimension{{Value: &onnx.TensorShapeProto_Dimension_DimParam{DimParam: "N"}}}
	for _, d := range shape {
		value := &onnx.TensorShapeProto_Dimension_DimValue{DimValue: int64(d)}
		dims = append(dims, &onnx.TensorShapeProto_Dimension{Value: value})
	}
	tensor := &onnx.TypeProto_Tensor{ElemType: proto.Int32(int32(onnx.TensorProto_FLOAT)),
		Shape: &onnx.TensorShapeProto{Dim: dims}}
	return &onnx.ValueInfoProto{Name: proto.String(name),
		Type: &onnx.TypeProto{Value: &onnx.TypeProto_TensorType{TensorType: tensor}}}
}

// graphWriter collects the nodes and constants of an ONNX graph.
type graphWriter struct {
	model   Model
	graph   *onnx.GraphProto
	tensors map[string]Tensor
	added   map[string]bool // orders of channels that the graph has
}

// value is the name of a layer's output.
func (g *graphWriter) value(layer int) string {
	switch layer {
	case -1:
		return "pictures"
	case len(g.model.Network.Layers) - 1:
		return "scores"
	}
	return g.model.Network.Layers[layer].Name
}

// node adds a node with one output, which has the node's name, and returns it.
func (g *graphWriter) node(op, name string, with []*onnx.AttributeProto, inputs ...string) string {
	g.graph.Node = append(g.graph.Node, &onnx.NodeProto{Name: proto.String(name), OpType: proto.String(op),
		Input: inputs, Output: []string{name}, Attribute: with})
	return name
}

// layer adds the nodes of layer i. The output of the last one gets the name of the layer.
func (g *graphWriter) layer(i int, l space.Layer) error {
	x, name := g.value(l.From), l.Name
	switch l.Kind {
	case space.Conv, space.IGC:
		if err := g.convolutions(x, l); err != nil {
			return err
		}
	case space.Add:
		x = g.node("Add", name+".add", nil, x, g.value(l.Shortcut))
		if l.ReLU {
			g.node("Relu", name+".relu", nil, x)
		}
	case space.MaxPool:
		g.node("MaxPool", name+".pool", attributes(ints("kernel_shape", 3, 3), ints("strides", 2, 2), ints("pads", 1, 1, 1, 1)), x)
	case space.Pool:
		x = g.node("GlobalAveragePool", name+".mean", nil, x)
		g.node("Flatten", name+".flat", nil, x)
	case space.Linear:
		weight, err := g.tensor(name+".weight", l.Out.C, l.In.C)
		if err != nil {
			return err
		}
		bias, err := g.tensor(name+".bias", l.Out.C)
		if err != nil {
			return err
		}
		g.node("Gemm", name+".gemm", attributes(integer("transB", 1)), x, weight, bias)
	default:
		return fmt.Errorf("no ONNX node is known for the kind %s", l.Kind)
	}
	g.graph.Node[len(g.graph.Node)-1].Output[0] = g.value(i)
	return nil
}

// convolutions adds the nodes of a layer of the kind Conv or IGC.
func (g *graphWriter) convolutions(x string, l space.Layer) error {
	for _, c := range convs(l) {
		weight, err := g.kernel(c)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(c.weight, ".weight")
		x = g.regroup(x, name+".regroup", c.in, c.in/c.groups, c.stepIn)
		x = g.node("Conv", name+".conv", attributes(ints("kernel_shape", c.kh, c.kw), integer("group", c.groups),
			ints("strides", c.stride, c.stride), ints("pads", c.kh/2, c.kw/2, c.kh/2, c.kw/2)), x, weight)
		x = g.regroup(x, name+".back", c.out, c.stepOut, c.out/c.groups)
		if c.relu {
			x = g.node("Relu", name+".relu", nil, x)
		}
	}
	if l.Norm {
		inputs := []string{x}
		for _, part := range []string{".weight", ".bias", ".running_mean", ".running_var"} {
			t, err := g.tensor(l.NormName()+part, l.Out.C)
			if err != nil {
				return err
			}
			inputs = append(inputs, t)
		}
		x = g.node("BatchNormalization", l.NormName(), attributes(float("epsilon", graph.Epsilon)), inputs...)
	}
	if l.ReLU {
		g.node("Relu", l.Name+".relu", nil, x)
	}
	return nil
}

// regroup puts those n channels side by side that lie step apart and make a partition. With step and n exchanged it
// undoes that. It returns x if both orders are the same.
func (g *graphWriter) regroup(x, name string, channels, n, step int) string {
	if n == 1 || step == 1 {
		return x
	}
	order := fmt.Sprintf("order.%d.%d.%d", channels, n, step)
	if !g.added[order] {
		g.added[order] = true
		var b []byte
		for c := range channels {
			b = binary.LittleEndian.AppendUint64(b, uint64(space.Channel(c/n, c%n, n, step)))
		}
		g.constant(order, onnx.TensorProto_INT64, b, channels)
	}
	return g.node("Gather", name, attributes(integer("axis", 1)), x, order)
}

// kernel adds the weights of a convolution and returns their name. Those of several branches are added up.
func (g *graphWriter) kernel(c conv) (string, error) {
	shape := []int{c.out, c.in / c.groups, c.kh, c.kw}
	if c.branches == 1 {
		return g.tensor(c.weight, shape...)
	}
	all, err := g.find(c.weight, c.branches*shape[0], shape[1], shape[2], shape[3])
	if err != nil {
		return "", err
	}
	n := len(all) / c.branches
	sum := slices.Clone(all[:n])
	for i, v := range all[n:] {
		sum[i%n] += v
	}
	g.constant(c.weight, onnx.TensorProto_FLOAT, appendFloats(nil, sum), shape...)
	return c.weight, nil
}

// tensor adds a tensor of the model and returns its name.
func (g *graphWriter) tensor(name string, shape ...int) (string, error) {
	values, err := g.find(name, shape...)
	if err == nil {
		g.constant(name, onnx.TensorProto_FLOAT, appendFloats(nil, values), shape...)
	}
	return name, err
}

// find returns the values of a tensor of the model.
func (g *graphWriter) find(name string, shape ...int) ([]float32, error) {
	t, ok := g.tensors[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("the tensor %s is missing", name)
	case !slices.Equal(t.Shape, shape):
		return nil, fmt.Errorf("the tensor %s has the shape %v, want %v", name, t.Shape, shape)
	}
	return t.Data, nil
}

// constant adds a constant to the graph. raw has its values, little-endian.
func (g *graphWriter) constant(name string, kind onnx.TensorProto_DataType, raw []byte, shape ...int) {
	g.graph.Initializer = append(g.graph.Initializer, &onnx.TensorProto{Name: proto.String(name),
		DataType: proto.Int32(int32(kind)), Dims: int64s(shape), RawData: raw})
}

// attributes are those of a node.
func attributes(list ...*onnx.AttributeProto) []*onnx.AttributeProto { return list }

func integer(name string, value int) *onnx.AttributeProto {
	return &onnx.AttributeProto{Name: proto.String(name), Type: onnx.AttributeProto_INT.Enum(), I: proto.Int64(int64(value))}
}

func ints(name string, values ...int) *onnx.AttributeProto {
	return &onnx.AttributeProto{Name: proto.String(name), Type: onnx.AttributeProto_INTS.Enum(), Ints: int64s(values)}
}

func float(name string, value float32) *onnx.AttributeProto {
	return &onnx.AttributeProto{Name: proto.String(name), Type: onnx.AttributeProto_FLOAT.Enum(), F: proto.Float32(value)}
}

func int64s(values []int) []int64 {
	list := make([]int64, len(values))
	for i, v := range values {
		list[i] = int64(v)
	}
	return list
}
