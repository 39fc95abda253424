package space

import (
	"fmt"
	"strconv"
	"strings"
)

// Shape is the size of the feature maps of one picture: C channels of H rows and W columns.
type Shape struct{ C, H, W int }

// String returns the shape as "3×32×32".
func (s Shape) String() string { return fmt.Sprintf("%d×%d×%d", s.C, s.H, s.W) }

// Kind says what a layer computes.
type Kind string

const (
	// Conv is a convolution with one or more partitions and zero padding of half a kernel.
	// Batch norm, ReLU, both or neither follow it.
	Conv Kind = "conv"
	// IGC is a product of group convolutions that is computed as one layer: a primary convolution
	// of neighbouring channels, and the 1×1 convolutions Mixes. An interleaved group convolution
	// block has one of them, the secondary convolution. Batch norm, ReLU, both or neither follow
	// the product.
	IGC Kind = "igc"
	// Add computes x + y from the outputs of the layers From and Shortcut, and ReLU(x + y) if ReLU
	// is set.
	Add Kind = "add"
	// MaxPool takes the largest of 3×3 positions, with stride 2 and zero padding of 1.
	MaxPool Kind = "max-pool"
	// Pool averages over all positions.
	Pool Kind = "pool"
	// Linear is a fully connected layer with biases.
	Linear Kind = "linear"
)

// Layer is one layer of a Network.
type Layer struct {
	// Name is the prefix of the names of the layer's tensors: conv0, block1, …, pool, fc.
	Name string
	Kind Kind
	// From is the index of the layer whose output this one reads, or −1 for the pictures.
	// Shortcut is the index of the second layer that an Add layer reads.
	From, Shortcut int
	// In and Out are the shapes of one picture's feature maps before and behind the layer.
	In, Out Shape

	// KH×KW is the kernel, for IGC the primary kernel. Both are odd. Stride is 1 or 2; the rows
	// and columns of Out are those of In divided by Stride, rounded up. The fields from KH to Norm
	// are set for Conv and IGC only.
	KH, KW, Stride int
	// Groups is the number of partitions, for IGC of the primary ones.
	Groups int
	// StepIn and StepOut say which channels of the input and of the output belong to a partition:
	// channel i of n is number Channel(partition, i, n, step). With 1 they are neighbours. With
	// Groups they are every Groups-th channel: the permutation of Eq. 2 comes before the
	// convolution, or its inverse behind it. Both are 1 for IGC.
	StepIn, StepOut int
	// Mixes are the 1×1 convolutions of IGC behind the primary one, in their order.
	Mixes []Mix
	// Between puts a ReLU between the primary convolution and the Mixes of IGC.
	Between bool
	// Branches is the number of convolutions of the same input whose outputs are added
	// (summation fusion, Eq. 21). It is 1 for a usual convolution.
	Branches int
	// Norm and ReLU put a batch norm and a ReLU behind the layer; an Add layer has no Norm.
	Norm, ReLU bool

	// Params is the number of weights and, for Linear, of biases. It leaves out batch norm, as
	// the paper does.
	Params int
	// MultiplyAdds is the number of multiply–adds in the forward pass of one picture. Only
	// convolutions and Linear have any.
	MultiplyAdds int64
}

// Mix is a 1×1 group convolution with as many output channels as input channels. Each partition
// has K channels that are Step apart: channel i of partition p is Channel(p, i, K, Step). K·Step
// divides the number of channels.
type Mix struct{ K, Step int }

// Channel returns the number of channel i, 0 ≤ i < n, of a partition. Partitions have n channels
// each, which are step apart.
func Channel(partition, i, n, step int) int {
	return partition/step*n*step + i*step + partition%step
}

// String returns a convolution as Table 2 of the paper writes it: the number of partitions, the
// kernel, and the output channels of a partition, for example "24 × (3×3, 2), 2 × (1×1, 24)". For
// other layers it returns the kind.
func (l Layer) String() string {
	conv := func(groups, kh, kw, out int) string {
		text := fmt.Sprintf("(%d×%d, %d)", kh, kw, out)
		if groups > 1 {
			return strconv.Itoa(groups) + " × " + text
		}
		return text
	}
	switch {
	case l.Branches > 1:
		return conv(l.Branches, l.KH, l.KW, l.Out.C) + ", summation"
	case l.Kind == Conv:
		return conv(l.Groups, l.KH, l.KW, l.Out.C/l.Groups)
	case l.Kind == IGC:
		text := conv(l.Groups, l.KH, l.KW, l.Out.C/l.Groups)
		for _, m := range l.Mixes {
			text += ", " + conv(l.Out.C/m.K, 1, 1, m.K)
		}
		return text
	}
	return string(l.Kind)
}

// Pair returns the pair of an IGC layer. If the layer changes the number of channels, it is the
// pair of the output.
func (l Layer) Pair() Pair { return Pair{L: l.Groups, M: l.Out.C / l.Groups} }

// WeightNames returns the names of the weights of a Conv or IGC layer: "block1.weight" of a
// convolution. A product has "block1.primary.weight" and, if it has one mix,
// "block1.secondary.weight", otherwise "block1.secondary1.weight", "block1.secondary2.weight" and so
// on.
func (l Layer) WeightNames() []string {
	switch {
	case l.Kind != IGC:
		return []string{l.Name + ".weight"}
	case len(l.Mixes) == 1:
		return []string{l.Name + ".primary.weight", l.Name + ".secondary.weight"}
	}
	names := []string{l.Name + ".primary.weight"}
	for i := range l.Mixes {
		names = append(names, fmt.Sprintf("%s.secondary%d.weight", l.Name, i+1))
	}
	return names
}

// NormName returns the prefix of the names of the norm's tensors: "bn0" behind "conv0", and
// "block1.bn" behind "block1" or its last part, "block1.secondary".
func (l Layer) NormName() string {
	if number, ok := strings.CutPrefix(l.Name, "conv"); ok {
		return "bn" + number
	}
	return strings.TrimSuffix(l.Name, ".secondary") + ".bn"
}

// Network is a list of layers. Each layer comes after those that it reads; the output of the last
// one has one score for each class.
type Network struct {
	Name string
	// Depth counts layers as the paper does: the linear layer, the first convolution, and each block
	// as one.
	Depth   int
	Classes int
	Layers  []Layer
}

// Params returns the sum of the layers' Params.
func (n Network) Params() int {
	sum := 0
	for _, l := range n.Layers {
		sum += l.Params
	}
	return sum
}

// MultiplyAdds returns the sum of the layers' MultiplyAdds, which is for one picture.
func (n Network) MultiplyAdds() int64 {
	var sum int64
	for _, l := range n.Layers {
		sum += l.MultiplyAdds
	}
	return sum
}

// Input returns the shape of the pictures.
func (n Network) Input() Shape { return n.Layers[0].In }

// builder collects the layers of a network.
type builder struct {
	layers []Layer
	in     Shape // the shape of the pictures
	layout Layout
}

// last returns the index of the last layer, or −1 if there is none yet.
func (b *builder) last() int { return len(b.layers) - 1 }

// shape returns the output shape of a layer; layer −1 stands for the pictures.
func (b *builder) shape(layer int) Shape {
	if layer < 0 {
		return b.in
	}
	return b.layers[layer].Out
}

// add sets the shapes and counts of a layer, appends it, and returns its index.
func (b *builder) add(l Layer) int {
	l.In = b.shape(l.From)
	if l.Kind == Conv || l.Kind == IGC {
		l.Branches, l.Stride = max(l.Branches, 1), max(l.Stride, 1)
		l.StepIn, l.StepOut = max(l.StepIn, 1), max(l.StepOut, 1)
		l.Out.H, l.Out.W = (l.In.H+l.Stride-1)/l.Stride, (l.In.W+l.Stride-1)/l.Stride
		l.Params = l.Branches * l.KH * l.KW * l.In.C / l.Groups * l.Out.C
		for _, m := range l.Mixes {
			l.Params += l.Out.C * m.K
		}
		// The convolution uses each weight once for each output position.
		l.MultiplyAdds = int64(l.Params) * int64(l.Out.H) * int64(l.Out.W)
	}
	b.layers = append(b.layers, l)
	return b.last()
}

// conv returns a convolution of the last layer, with norm and ReLU behind it. It does not add it.
func (b *builder) conv(name string, kind Kind, groups, out, kernel, stride int) Layer {
	return Layer{Name: name, Kind: kind, From: b.last(), Out: Shape{C: out},
		KH: kernel, KW: kernel, Stride: stride, Groups: groups, Norm: true, ReLU: true}
}

// end adds the average over all positions and the linear layer, and returns the network.
func (b *builder) end(name string, depth, classes int) Network {
	c := b.shape(b.last()).C
	b.add(Layer{Name: "pool", Kind: Pool, From: b.last(), Out: Shape{C: c, H: 1, W: 1}})
	b.add(Layer{Name: "fc", Kind: Linear, From: b.last(), Out: Shape{C: classes, H: 1, W: 1},
		Params: c*classes + classes, MultiplyAdds: int64(c) * int64(classes)})
	return Network{Name: name, Depth: depth, Classes: classes, Layers: b.layers}
}

// Figure3 returns the network that the paper trains for its Figure 3 (Section 5.3): a 3×3
// convolution to G = p.Width() channels, IGC blocks with 3×3 primary kernels, the average over all
// positions, and a linear layer. No layer reduces the number of positions before the average. The
// paper has 6 blocks, in = {3, 32, 32} and 100 classes. All arguments are at least 1; Figure3
// panics where System.Network would return an error.
func Figure3(p Pair, blocks int, in Shape, classes int) Network {
	n, err := PairSystem(p).Network(Plan{Layout: Flat, Depth: blocks + 2, In: in, Classes: classes})
	if err != nil {
		panic(err) // arguments within the limits of this package always give a network
	}
	return n
}
