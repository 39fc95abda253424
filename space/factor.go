package space

import (
	"fmt"
	"strconv"
)

// Factor is one group convolution of a block. A block is a product of factors: each reads the one
// before it. From the list of its factors follow the layers of a block, their counts, the names of
// their tensors, and the way of a channel from partition to partition.
type Factor struct {
	// Name tells the factors of a block apart, as in block1.primary. It is "" in a block of one
	// factor.
	Name   string
	KH, KW int
	// Groups is the number of partitions, Out the number of output channels. A partition has the
	// channels that Layer.StepIn and Layer.StepOut describe; 0 is 1.
	Groups, Out     int
	StepIn, StepOut int
	// Branches is that of Layer; 0 is 1.
	Branches int
	// Norm and ReLU put a batch norm and a ReLU behind the factor.
	Norm, ReLU bool
	// Fused says that the factor is computed in one layer of the kind IGC with the one before. A
	// fused factor is 1×1, has as many output as input channels and equal steps, and the factor
	// before has no norm.
	Fused bool
}

// params returns the number of weights of a factor that reads in channels.
func (f Factor) params(in int) int {
	return max(f.Branches, 1) * f.KH * f.KW * (in / f.Groups) * f.Out
}

// blockParams returns the number of weights of a block that reads in channels.
func blockParams(in int, factors []Factor) (sum int) {
	for _, f := range factors {
		sum += f.params(in)
		in = f.Out
	}
	return sum
}

// fit returns an error if a factor of a block that reads in channels cannot divide its channels.
func fit(in int, factors []Factor) error {
	for _, f := range factors {
		switch {
		case f.Out > maxWidth:
			return fmt.Errorf("a block has %d channels inside: want at most %d", f.Out, maxWidth)
		case in%f.Groups != 0 || f.Out%f.Groups != 0:
			return fmt.Errorf("a convolution cannot divide %d and %d channels into %d partitions", in, f.Out, f.Groups)
		}
		in = f.Out
	}
	return nil
}

// pointwise returns a 1×1 factor of neighbouring channels, without norm and ReLU.
func pointwise(name string, groups, out int) Factor {
	return Factor{Name: name, KH: 1, KW: 1, Groups: groups, Out: out}
}

// spatial returns a factor with a square kernel of neighbouring channels, without norm and ReLU.
func spatial(name string, kernel, groups, out int) Factor {
	return Factor{Name: name, KH: kernel, KW: kernel, Groups: groups, Out: out}
}

// interleaved returns the factor with partitions that take every Groups-th channel.
func (f Factor) interleaved() Factor { f.StepIn, f.StepOut = f.Groups, f.Groups; return f }

// norm returns the factor with a batch norm behind it, and rectified the factor with a norm and a
// ReLU.
func (f Factor) norm() Factor      { f.Norm = true; return f }
func (f Factor) rectified() Factor { f.Norm, f.ReLU = true, true; return f }

// block adds the layers of a block that reads the last layer. The last factor whose kernel is larger
// than 1×1 has the stride, since a smaller one would skip positions. If there is none, the first
// has it.
func (b *builder) block(name string, factors []Factor, stride int) {
	strided := 0
	for i, f := range factors {
		if f.KH > 1 || f.KW > 1 {
			strided = i
		}
	}
	for i := 0; i < len(factors); {
		f := factors[i]
		l := Layer{Name: name, Kind: Conv, From: b.last(), Out: Shape{C: f.Out}, KH: f.KH, KW: f.KW,
			Groups: f.Groups, StepIn: f.StepIn, StepOut: f.StepOut, Branches: f.Branches}
		if i == strided {
			l.Stride = stride
		}
		last := i
		for last+1 < len(factors) && factors[last+1].Fused {
			last++
			m := factors[last]
			l.Mixes = append(l.Mixes, Mix{K: m.Out / m.Groups, Step: max(m.StepIn, 1)})
		}
		switch {
		case last > i:
			l.Kind, l.Between = IGC, f.ReLU
		case len(factors) > 1:
			l.Name += "." + f.Name
		}
		l.Norm, l.ReLU = factors[last].Norm, factors[last].ReLU
		b.add(l)
		i = last + 1
	}
}

// unit says which blocks form a residual unit, whose input is added to its output.
type unit struct {
	blocks int // of a unit; 0 if there are no units
	// project puts a 1×1 group convolution and a norm into the shortcut of a unit that changes the
	// shape. Without it such a unit adds nothing.
	project bool
	relu    bool // behind the sum
}

// unit returns the unit of the system's networks.
func (s System) unit() unit {
	if s.Ident {
		return unit{blocks: 2, project: true, relu: true}
	}
	return s.family().unit
}

// addStage adds the blocks of stage i ≥ 0, which are several, with the partitions next. The layer
// that the stage reads has the partitions prev. All stages but the first begin with a stride of 2.
func (s System) addStage(b *builder, i, blocks int, prev, next Pair) {
	u := s.unit()
	for k := 0; k < blocks; k += max(u.blocks, 1) {
		stride := 1
		if i > 0 && k == 0 {
			stride = 2
		}
		if number := i*blocks + k + 1; u.blocks == 0 {
			b.block("block"+strconv.Itoa(number), s.block(b.layout, prev, next), stride)
		} else {
			s.residual(b, u, number, prev, next, stride)
		}
		prev = next
	}
}

// residual adds a residual unit, whose first block has a number: the blocks, of which the last ends
// without a ReLU, the shortcut where the shape changes, and the sum.
func (s System) residual(b *builder, u unit, number int, prev, next Pair, stride int) {
	from, name, first := b.last(), "unit"+strconv.Itoa((number-1)/u.blocks+1), stride
	for k := range u.blocks {
		factors := s.block(b.layout, prev, next)
		if k == u.blocks-1 {
			factors[len(factors)-1].ReLU = false
		}
		b.block("block"+strconv.Itoa(number+k), factors, stride)
		prev, stride = next, 1
	}
	branch, shortcut := b.last(), from
	if b.shape(branch) != b.shape(from) {
		if !u.project {
			return
		}
		shortcut = b.add(Layer{Name: name + ".shortcut", Kind: Conv, From: from, Out: Shape{C: next.Width()},
			KH: 1, KW: 1, Stride: first, Groups: next.L, Norm: true})
	}
	b.add(Layer{Name: name, Kind: Add, From: branch, Shortcut: shortcut, Out: b.shape(branch), ReLU: u.relu})
}
