package space

import "strconv"

// Shape is the size of one picture's feature maps: channels, rows, columns.
type Shape struct{ C, H, W int }

// Kind says what a layer computes.
type Kind string

const (
	// Conv is a regular convolution with zero padding, batch norm and ReLU.
	Conv Kind = "conv"
	// IGC is an interleaved group convolution block: primary, permutation,
	// secondary, permutation back, batch norm and ReLU.
	IGC Kind = "igc"
	// Pool is the average over all positions.
	Pool Kind = "pool"
	// Linear is a fully connected layer with bias.
	Linear Kind = "linear"
)

// Layer is one layer of a Network.
type Layer struct {
	// Name is the prefix of the layer's parameters: conv0, block1, …, pool, fc.
	Name    string
	Kind    Kind
	In, Out Shape
	// Pair is set for IGC only.
	Pair Pair
	// Kernel is the spatial positions of the kernel, of the primary one for
	// IGC; 0 for Pool and Linear.
	Kernel int
	// Params counts weights and, for Linear, biases; not batch norm. This is
	// how the paper counts.
	Params int
	// MultiplyAdds is those of the forward pass of one picture; convolutions
	// and Linear only.
	MultiplyAdds int64
}

// Network is a chain of layers: each one's Out is the next one's In.
type Network struct {
	Name    string
	Classes int
	Layers  []Layer
}

// Params is the sum over the layers.
func (n Network) Params() int {
	sum := 0
	for _, l := range n.Layers {
		sum += l.Params
	}
	return sum
}

// MultiplyAdds is the sum over the layers.
func (n Network) MultiplyAdds() int64 {
	var sum int64
	for _, l := range n.Layers {
		sum += l.MultiplyAdds
	}
	return sum
}

// Figure3 is the network behind the paper's Figure 3 (Section 5.3): a 3×3
// convolution to G = p.Width() channels, IGC blocks with 3×3 primary kernels,
// the average over all positions, and a linear layer. Nothing samples down.
// The paper has 6 blocks, in = {3, 32, 32} and 100 classes. All arguments are
// at least 1.
func Figure3(p Pair, blocks int, in Shape, classes int) Network {
	const kernel = 3 * 3
	maps := Shape{C: p.Width(), H: in.H, W: in.W}
	layers := []Layer{convolution(Layer{Name: "conv0", Kind: Conv, In: in, Out: maps, Kernel: kernel, Params: in.C * maps.C * kernel})}
	for i := range blocks {
		layers = append(layers, convolution(Layer{
			Name: "block" + strconv.Itoa(i+1), Kind: IGC, In: maps, Out: maps,
			Pair: p, Kernel: kernel, Params: p.Params(kernel),
		}))
	}
	vector := Shape{C: maps.C, H: 1, W: 1}
	scores := Shape{C: classes, H: 1, W: 1}
	layers = append(layers,
		Layer{Name: "pool", Kind: Pool, In: maps, Out: vector},
		Layer{Name: "fc", Kind: Linear, In: vector, Out: scores,
			Params: maps.C*classes + classes, MultiplyAdds: int64(maps.C) * int64(classes)})
	return Network{Name: "IGC-" + p.String(), Classes: classes, Layers: layers}
}

// convolution fills in the multiply–adds of a layer without bias: each weight
// is used once for each output position.
func convolution(l Layer) Layer {
	l.MultiplyAdds = int64(l.Params) * int64(l.Out.H) * int64(l.Out.W)
	return l
}
