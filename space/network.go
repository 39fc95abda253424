package space

import (
	"fmt"
	"strconv"
)

// Shape is the size of one picture's feature maps: channels, rows, columns.
type Shape struct{ C, H, W int }

func (s Shape) String() string { return fmt.Sprintf("%d×%d×%d", s.C, s.H, s.W) }

// Kind says what a layer computes.
type Kind string

const (
	// Conv is a convolution with zero padding of half a kernel, grouped or
	// not, and what follows it: batch norm, ReLU, both or neither.
	Conv Kind = "conv"
	// IGC is an interleaved group convolution block: primary, permutation,
	// secondary 1×1, permutation back, and what follows as in Conv.
	IGC Kind = "igc"
	// Add is ReLU(x + y): the layer From and the layer Shortcut.
	Add Kind = "add"
	// MaxPool is the largest of 3×3 positions, stride 2, zero padding 1.
	MaxPool Kind = "max-pool"
	// Pool is the average over all positions.
	Pool Kind = "pool"
	// Linear is a fully connected layer with bias.
	Linear Kind = "linear"
)

// Layer is one layer of a Network.
type Layer struct {
	// Name is the prefix of the layer's parameters: conv0, block1, …, pool, fc.
	Name string
	Kind Kind
	// From is the index of the layer it reads, −1 for the pictures. Shortcut
	// is the second one of Add.
	From, Shortcut int
	In, Out        Shape

	// Of Conv and IGC only. KH×KW is the kernel, of the primary one for IGC;
	// both are odd. Stride is 1 or 2; the output is In over Stride, rounded up.
	KH, KW, Stride int
	// Groups is the number of partitions; of the primary ones for IGC. The
	// secondary ones of IGC are Out.C/Groups, of Groups channels each.
	Groups int
	// Interleaved partitions take every Groups-th channel: the permutation of
	// Eq. 2 before the convolution and its inverse behind.
	Interleaved bool
	// Between is set for a ReLU between primary and secondary of IGC.
	Between bool
	// Branches is the number of convolutions of the same input whose outputs
	// are summed (summation fusion, Eq. 21); 1 for one.
	Branches int
	// Norm and ReLU say what follows.
	Norm, ReLU bool

	// Params counts weights and, for Linear, biases; not batch norm. This is
	// how the paper counts.
	Params int
	// MultiplyAdds is those of the forward pass of one picture; convolutions
	// and Linear only.
	MultiplyAdds int64
}

// String is a convolution as Table 2 of the paper writes it, the number of
// partitions before the kernel and the channels that it gives:
// "24 × (3×3, 2), 2 × (1×1, 24)"; of others the kind.
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
		return conv(l.Groups, l.KH, l.KW, l.Out.C/l.Groups) + ", " + conv(l.Out.C/l.Groups, 1, 1, l.Groups)
	}
	return string(l.Kind)
}

// Pair is the partition numbers of an IGC layer; of one that changes the
// number of channels, those of its output.
func (l Layer) Pair() Pair { return Pair{L: l.Groups, M: l.Out.C / l.Groups} }

// Network is a list of layers, each after those it reads. The last one's
// output are the scores of the classes.
type Network struct {
	Name    string
	Depth   int // as the paper counts: convolutions of the longest path but shortcuts' and secondary ones, and Linear
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

// Input is the shape of the pictures.
func (n Network) Input() Shape { return n.Layers[0].In }

// builder collects layers. Each method adds one that reads the last one and
// returns its index.
type builder struct {
	layers []Layer
	in     Shape // of the pictures
	layout Layout
}

// last is the index of the last layer, −1 for the pictures.
func (b *builder) last() int { return len(b.layers) - 1 }

func (b *builder) shape(layer int) Shape {
	if layer < 0 {
		return b.in
	}
	return b.layers[layer].Out
}

func (b *builder) add(l Layer) int {
	l.In = b.shape(l.From)
	if l.Kind == Conv || l.Kind == IGC {
		l.Branches, l.Stride = max(l.Branches, 1), max(l.Stride, 1)
		l.Out.H, l.Out.W = (l.In.H+l.Stride-1)/l.Stride, (l.In.W+l.Stride-1)/l.Stride
		l.Params = l.Branches * l.KH * l.KW * l.In.C / l.Groups * l.Out.C
		if l.Kind == IGC {
			l.Params += l.Out.C * l.Groups
		}
		// Each weight is used once for each output position.
		l.MultiplyAdds = int64(l.Params) * int64(l.Out.H) * int64(l.Out.W)
	}
	b.layers = append(b.layers, l)
	return b.last()
}

// conv is a layer that reads the last one, with norm and ReLU behind.
func (b *builder) conv(name string, kind Kind, groups, out, kernel, stride int) Layer {
	return Layer{Name: name, Kind: kind, From: b.last(), Out: Shape{C: out}, KH: kernel, KW: kernel, Stride: stride, Groups: groups, Norm: true, ReLU: true}
}

// end adds the average over all positions and the linear layer.
func (b *builder) end(name string, depth, classes int) Network {
	c := b.shape(b.last()).C
	b.add(Layer{Name: "pool", Kind: Pool, From: b.last(), Out: Shape{C: c, H: 1, W: 1}})
	b.add(Layer{Name: "fc", Kind: Linear, From: b.last(), Out: Shape{C: classes, H: 1, W: 1},
		Params: c*classes + classes, MultiplyAdds: int64(c) * int64(classes)})
	return Network{Name: name, Depth: depth, Classes: classes, Layers: b.layers}
}

// Figure3 is the network behind the paper's Figure 3 (Section 5.3): a 3×3
// convolution to G = p.Width() channels, IGC blocks with 3×3 primary kernels,
// the average over all positions, and a linear layer. Nothing samples down.
// The paper has 6 blocks, in = {3, 32, 32} and 100 classes. All arguments are
// at least 1.
func Figure3(p Pair, blocks int, in Shape, classes int) Network {
	n, err := PairSystem(p).Network(Plan{Layout: Flat, Depth: blocks + 2, In: in, Classes: classes})
	if err != nil {
		panic(err) // a pair of a width that can be built always can
	}
	return n
}

// block adds a block: from the last layer, whose partitions are prev, to
// next.Width() channels in the partitions next. A stride of 2 begins a stage.
// The last layer that it adds has norm and, if relu is set, a ReLU.
func (s System) block(b *builder, name string, prev, next Pair, stride int, relu bool) {
	out, v, k := next.Width(), s.Variant, s.Variant.kernel()
	layer := func(suffix string, kind Kind, groups, c, kh, kw, stride int) Layer {
		l := b.conv(name+suffix, kind, groups, c, kh, stride)
		l.KW = kw
		return l
	}
	plain := func(l Layer) Layer { l.Norm, l.ReLU = false, false; return l }
	end := func(l Layer) { l.ReLU = relu; b.add(l) }
	interleaved := func(l Layer) Layer { l.Interleaved = true; return l }
	secondary := next.M
	if s.Ident && b.layout != ImageNet && next == (Pair{L: prev.L, M: 2 * prev.M}) {
		// Where M doubles, the authors' code for CIFAR keeps the number of
		// secondary partitions that the input had. Their ImageNet networks do not.
		secondary = prev.M
	}
	switch {
	case s.Family == FamilySumFusion:
		l := layer("", Conv, 1, out, 3, 3, stride)
		l.Branches = sumFusionBranches
		end(l)
	case s.Family != FamilyIGC:
		end(layer("", Conv, 1, out, 3, 3, stride))
	case v == Swapped:
		b.add(plain(layer(".primary", Conv, next.L, out, 1, 1, 1)))
		end(interleaved(layer(".secondary", Conv, secondary, out, 3, 3, stride)))
	case v == Projected:
		b.add(plain(layer(".primary", Conv, next.L, out, 3, 3, stride)))
		end(layer(".secondary", Conv, 1, out, 1, 1, 1))
	case v.reduction() > 1:
		// There are no more secondary partitions than the primary gives channels
		// of each of its own; secondary is at least as many.
		m := next.M / v.reduction()
		b.add(plain(layer(".primary", Conv, next.L, next.L*m, 3, 3, stride)))
		end(interleaved(layer(".secondary", Conv, m, out, 1, 1, 1)))
	case secondary != next.M:
		// An IGC layer has next.M secondary partitions, so these are two layers.
		kh, kw := k, k
		if v == Split {
			b.add(plain(layer(".primary0", Conv, next.L, out, 1, 3, 1)))
			kw = 1
		}
		l := plain(layer(".primary", Conv, next.L, out, kh, kw, stride))
		l.ReLU = v == Rectified
		b.add(l)
		end(interleaved(layer(".secondary", Conv, secondary, out, 1, 1, 1)))
	case v == Split:
		// The stride comes last: a 1×3 kernel would skip every second row.
		b.add(plain(layer(".primary0", Conv, next.L, out, 1, 3, 1)))
		end(layer("", IGC, next.L, out, 3, 1, stride))
	default:
		l := layer("", IGC, next.L, out, k, k, stride)
		l.Between = v == Rectified
		end(l)
	}
}

// residual adds a residual unit: two blocks, and the input added to them;
// where the shape changes, through a 1×1 group convolution with a norm, in the L
// partitions of next.
func (s System) residual(b *builder, unit int, prev, next Pair, stride int) {
	from, name := b.last(), "unit"+strconv.Itoa(unit)
	s.block(b, fmt.Sprintf("block%d", 2*unit-1), prev, next, stride, true)
	s.block(b, fmt.Sprintf("block%d", 2*unit), next, next, 1, false)
	branch, shortcut := b.last(), from
	if b.shape(branch) != b.shape(from) {
		shortcut = b.add(Layer{Name: name + ".shortcut", Kind: Conv, From: from, Out: Shape{C: next.Width()}, KH: 1, KW: 1, Stride: stride, Groups: next.L, Norm: true})
	}
	b.add(Layer{Name: name, Kind: Add, From: branch, Shortcut: shortcut, Out: b.shape(branch)})
}
