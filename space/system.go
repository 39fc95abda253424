package space

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Family is the kind of block that a network is built of.
type Family string

const (
	FamilyIGC     Family = "IGC"
	FamilyRegConv Family = "RegConv" // regular 3×3 convolutions
	FamilyResNet  Family = "ResNet"  // the same with identity mappings, as Table 6 calls it
	// FamilySumFusion sums 4 regular 3×3 convolutions of the same input,
	// width 8 in the first stage.
	FamilySumFusion Family = "SumFusion"
)

const (
	sumFusionBranches = 4
	sumFusionWidth    = 8
)

// Variant is a change of the IGC block that Section 4 of the paper discusses;
// "" is the block itself. S is 9 in the formulas of their parameters.
type Variant string

const (
	// Swapped has 1×1 kernels in the primary, 3×3 kernels in the secondary
	// convolution: L·M² + S·M·L².
	Swapped Variant = "Swap"
	// Projected has a 1×1 convolution over all channels in place of the
	// secondary one: S·L·M² + (L·M)².
	Projected Variant = "Proj"
	// Split has a 1×3 and a 3×1 kernel in place of the 3×3 one: 2·3·L·M² + M·L².
	Split Variant = "1x3"
	// Large has 5×5 kernels: 25·L·M² + M·L².
	Large Variant = "5x5"
	// Rectified has a ReLU between primary and secondary; parameters as the
	// block itself.
	Rectified Variant = "ReLU"
)

// Bottleneck is the variant whose primary convolution gives M/r channels of
// each partition, r ≥ 2, and whose secondary, M/r partitions, restores them:
// S·L·M·(M/r) + M·L².
func Bottleneck(r int) Variant { return Variant("B" + strconv.Itoa(r)) }

// Variants lists those without a parameter, in the order of the paper.
var Variants = []Variant{"", Swapped, Projected, Split, Large, Rectified}

// reduction is r of a bottleneck, else 1.
func (v Variant) reduction() int {
	if rest, ok := strings.CutPrefix(string(v), "B"); ok {
		if r, err := strconv.Atoi(rest); err == nil && r >= 2 && r <= maxPartitions && rest == strconv.Itoa(r) {
			return r
		}
	}
	return 1
}

func (v Variant) known() bool {
	for _, k := range Variants {
		if v == k {
			return true
		}
	}
	return v.reduction() > 1
}

// Validate returns an error that lists the variants if v is none of them.
func (v Variant) Validate() error {
	if v.known() {
		return nil
	}
	return fmt.Errorf("variant %q: want Swap, Proj, 1x3, 5x5, ReLU, or B2, B3, … for a bottleneck", string(v))
}

// kernel is the side of the primary kernel.
func (v Variant) kernel() int {
	if v == Large {
		return 5
	}
	return 3
}

// cost returns a and b of the block's parameters a·L + b·L², for a primary
// kernel of S positions; false if M is not possible.
func (v Variant) cost(s, m int) (a, b int, ok bool) {
	switch r := v.reduction(); {
	case v == Swapped:
		return m * m, s * m, true
	case v == Projected:
		return s * m * m, m * m, true
	case v == Split:
		return 2 * 3 * m * m, m, true
	case v == Large:
		return 25 * m * m, m, true
	case r > 1:
		return s * m * (m / r), m, m%r == 0
	}
	return s * m * m, m, true
}

// Params is the number of weights of a block of the variant with a primary
// kernel of the given number of positions, which Split and Large replace by
// their own; 0 if the variant does not exist for this pair.
func (v Variant) Params(p Pair, kernel int) int {
	a, b, ok := v.cost(kernel, p.M)
	if !ok {
		return 0
	}
	return a*p.L + b*p.L*p.L
}

// System names a network of the paper, or one that is built like them. It is
// comparable. Its String is the paper's spelling, as "IGC-L24M2+Ident.".
type System struct {
	Family Family
	// Stages are the partitions in each stage of an IGC network. A stage that
	// is zero has twice the channels of the one before, by doubling M with L
	// unchanged, or the other way round if DoublesL is set.
	Stages   [4]Pair
	DoublesL bool
	// Width is the number of channels in the first stage of RegConv and ResNet;
	// each stage has twice those of the one before.
	Width int
	// Ident adds identity mappings: residual units of two blocks.
	Ident   bool
	Variant Variant
	// Depth is D where it is part of the name, else 0.
	Depth int
}

var systemRE = regexp.MustCompile(`^(?:(IGC)-((?:L\d+M\d+)(?:/L\d+M\d+){0,3})|(RegConv)-W(\d+)|(ResNet)-C(\d+)|(SumFusion))((?:\+[A-Za-z0-9.]+)*)(?:-D(\d+))?$`)

// ParseSystem reads a name: "IGC-L24M2", "RegConv-W18", "ResNet-C64" or
// "SumFusion"; behind it "+Ident." for identity mappings, "+2L" for stages that
// double L in place of M, and "+" with a Variant; last "-D20" for a depth.
// "IGC-L40M2/L20M4/L10M8" gives the partitions of each stage.
func ParseSystem(name string) (System, error) {
	var s System
	m := systemRE.FindStringSubmatch(name)
	if m == nil {
		return s, fmt.Errorf("network %q: want a name like IGC-L24M2, RegConv-W18, ResNet-C64 or SumFusion, +Ident. behind it for identity mappings", name)
	}
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		if err != nil {
			return -1
		}
		return n
	}
	switch {
	case m[1] != "":
		s.Family = FamilyIGC
		for i, text := range strings.Split(m[2], "/") {
			p, err := ParsePair(text)
			if err != nil {
				return s, fmt.Errorf("network %q: %w", name, err)
			}
			s.Stages[i] = p
		}
	case m[7] != "":
		s.Family = FamilySumFusion
	default:
		s.Family, s.Width, s.Ident = Family(m[3]+m[5]), number(m[4]+m[6]), m[5] != ""
		if s.Width < 1 || s.Width > maxPartitions {
			return s, fmt.Errorf("network %q: want a width from 1 to %d", name, maxPartitions)
		}
	}
	if m[8] != "" {
		for _, option := range strings.Split(m[8][1:], "+") {
			switch v := Variant(option); {
			case option == "Ident." || option == "Ident":
				s.Ident = true
			case option == "2L" && s.Family == FamilyIGC && !s.DoublesL && s.Stages[1] == Pair{}:
				s.DoublesL = true
			case s.Family == FamilyIGC && s.Variant == "" && v != "" && v.known():
				s.Variant = v
			default:
				return s, fmt.Errorf("network %q: +%s is not possible here; want +Ident., and for IGC +2L or one of +Swap, +Proj, +1x3, +5x5, +ReLU, +B2", name, option)
			}
		}
	}
	if s.Family == FamilySumFusion && s.Ident {
		return s, fmt.Errorf("network %q: no summation fusion with identity mappings", name)
	}
	if m[9] != "" {
		if s.Depth = number(m[9]); s.Depth < 3 || s.Depth > maxDepth {
			return s, fmt.Errorf("network %q: want a depth from 3 to %d", name, maxDepth)
		}
	}
	return s, nil
}

// Limits of a network. With them its counts stay under 2⁶³.
const (
	maxDepth = 10_000
	maxWidth = 1_000_000
	maxSide  = 100_000 // of pictures, and classes
	maxCount = 1 << 62 // multiply–adds
)

// String is the name that ParseSystem reads.
func (s System) String() string {
	var b strings.Builder
	b.WriteString(string(s.Family))
	switch s.Family {
	case FamilyIGC:
		for i, p := range s.Stages {
			if i > 0 && p == (Pair{}) {
				break
			}
			b.WriteString(string("-/"[min(i, 1)]) + p.String())
		}
	case FamilyRegConv:
		fmt.Fprintf(&b, "-W%d", s.Width)
	case FamilyResNet:
		fmt.Fprintf(&b, "-C%d", s.Width)
	}
	if s.Ident && s.Family != FamilyResNet {
		b.WriteString("+Ident.")
	}
	if s.DoublesL {
		b.WriteString("+2L")
	}
	if s.Variant != "" {
		b.WriteString("+" + string(s.Variant))
	}
	if s.Depth > 0 {
		fmt.Fprintf(&b, "-D%d", s.Depth)
	}
	return b.String()
}

// Label is the shortest name: "L40M2" for the plain IGC network of a pair, else
// String.
func (s System) Label() string {
	if s == PairSystem(s.Pair()) {
		return s.Pair().String()
	}
	return s.String()
}

// PairSystem is the IGC network of a pair.
func PairSystem(p Pair) System { return System{Family: FamilyIGC, Stages: [4]Pair{p}} }

// stage returns the partitions of stage i ≥ 0; for others than IGC the
// channels as Pair{1, C}.
func (s System) stage(i int) Pair {
	double := func(p Pair) Pair {
		if s.DoublesL {
			return Pair{L: 2 * p.L, M: p.M}
		}
		return Pair{L: p.L, M: 2 * p.M}
	}
	switch {
	case s.Family == FamilySumFusion:
		return Pair{L: 1, M: sumFusionWidth << i}
	case s.Family != FamilyIGC:
		return Pair{L: 1, M: s.Width << i}
	case i == 0 || s.Stages[i] != Pair{}:
		return s.Stages[i]
	}
	return double(s.stage(i - 1))
}

// Pair is the partitions of the first stage; zero if the network has none.
func (s System) Pair() Pair {
	if s.Family != FamilyIGC {
		return Pair{}
	}
	return s.Stages[0]
}

// Layout is how the stages follow each other.
type Layout string

const (
	// Flat is the network of Figure 3: a 3×3 convolution and D − 2 blocks,
	// nothing samples down.
	Flat Layout = "flat"
	// Stages is the networks of Tables 2 to 5 and 7: a 3×3 convolution and
	// three stages, the second and third with half the size and twice the
	// channels. D = 3B + 2, with identity mappings 6n + 2.
	Stages Layout = "stages"
	// ImageNet is that of Table 6: a 7×7 convolution with stride 2, max pool,
	// four stages of residual units. D = 8n + 2; the paper has n = 2. Where L
	// doubles from stage to stage, the first unit doubles the channels as well:
	// the 7×7 convolution gives half those of the first stage.
	ImageNet Layout = "imagenet"
)

// Layouts lists them.
var Layouts = []Layout{Flat, Stages, ImageNet}

// DefaultDepth is the paper's: 8 of Figure 3, 20 of Table 7, 18 of Table 6; 50 of
// Table 5, if with identity mappings.
func (l Layout) DefaultDepth(ident bool) int {
	switch {
	case l == Flat:
		return 8
	case l == ImageNet:
		return 18
	case ident:
		return 50
	}
	return 20
}

// Plan says which network of a system is wanted.
type Plan struct {
	Layout  Layout
	Depth   int // 0: the System's, else the layout's DefaultDepth
	In      Shape
	Classes int
}

// DepthOf is the depth that a system has in the plan.
func (p Plan) DepthOf(s System) int {
	switch {
	case p.Depth > 0:
		return p.Depth
	case s.Depth > 0:
		return s.Depth
	}
	return p.Layout.DefaultDepth(s.Ident)
}

// Network builds the system's network, or says why there is none.
func (s System) Network(p Plan) (n Network, err error) {
	depth := p.DepthOf(s)
	if s.Depth > 0 && s.Depth != depth {
		return n, fmt.Errorf("%s: its name says another depth than %d", s, depth)
	}
	name := s
	name.Depth = 0
	fail := func(format string, a ...any) (Network, error) {
		return n, fmt.Errorf("%s: "+format, append([]any{name}, a...)...)
	}
	stages, rule, blocks := stages, "3B + 2", (depth-2)/3 // blocks of a stage
	switch {
	case p.Layout == Flat:
		stages, rule, blocks = 1, "at least 3", depth-2
		if s.Ident {
			rule, blocks = "2n + 2", (depth-2)/2*2
		}
	case p.Layout == ImageNet:
		stages, rule, blocks = 4, "8n + 2", (depth-2)/8*2
		if !s.Ident {
			return fail("the ImageNet layout is one of residual units: want +Ident. behind the name")
		}
	case p.Layout != Stages:
		return fail("no layout %q; want flat, stages or imagenet", p.Layout)
	case s.Ident:
		rule, blocks = "6n + 2", (depth-2)/6*2
	}
	if depth > maxDepth {
		return fail("depth %d: want at most %d", depth, maxDepth)
	}
	if blocks < 1 || stages*blocks+2 != depth {
		return fail("depth %d: want %s", depth, rule)
	}
	if p.In.C < 1 || p.In.H < 1 || p.In.W < 1 || p.Classes < 1 || max(p.In.C, p.In.H, p.In.W, p.Classes) > maxSide {
		return fail("pictures of %v, %d classes: want 1 to %d each", p.In, p.Classes, maxSide)
	}
	first := s.stage(0) // what the first convolution gives
	if p.Layout == ImageNet && s.DoublesL {
		if first.M%2 != 0 {
			return fail("M = %d: want an even one, since on ImageNet the first unit of +2L doubles the channels", first.M)
		}
		first.M /= 2
	}
	prev := first
	for i := range stages {
		next := s.stage(i)
		switch {
		case next.L < 1 || next.M < 1 || next.L > maxWidth/next.M:
			return fail("stage %d has the partitions %v: want 1 to %d channels", i+1, next, maxWidth)
		case prev.Width()%next.L != 0:
			return fail("%d channels do not part into the %d partitions of stage %d", prev.Width(), next.L, i+1)
		case next.M%s.Variant.reduction() != 0:
			return fail("the %d channels of a partition in stage %d do not divide by %d", next.M, i+1, s.Variant.reduction())
		}
		prev = next
	}
	if s.Stages[min(stages, 3)] != (Pair{}) && stages < 4 {
		return fail("more stages in its name than the %d of the %s layout", stages, p.Layout)
	}
	b := builder{in: p.In, layout: p.Layout}
	prev = first
	if p.Layout == ImageNet {
		b.add(b.conv("conv0", Conv, 1, prev.Width(), 7, 2))
		at := b.shape(0)
		b.add(Layer{Name: "max", Kind: MaxPool, Out: Shape{C: at.C, H: (at.H + 1) / 2, W: (at.W + 1) / 2}})
	} else {
		b.add(b.conv("conv0", Conv, 1, prev.Width(), 3, 1))
	}
	for i := range stages {
		next := s.stage(i)
		s.addStage(&b, i, blocks, prev, next)
		prev = next
	}
	n = b.end(name.String(), depth, p.Classes)
	count := 0.0
	for _, l := range n.Layers {
		count += float64(l.Params) * float64(l.Out.H) * float64(l.Out.W)
	}
	if count > maxCount {
		return Network{}, fmt.Errorf("%s: some 10^%d multiply–adds are too many to count", name, int(math.Log10(count)))
	}
	return n, nil
}

// addStage adds the blocks of stage i ≥ 0, whose first one reads channels in the
// partitions prev.
func (s System) addStage(b *builder, i, blocks int, prev, next Pair) {
	for k := range blocks {
		stride := 1
		if i > 0 && k == 0 {
			stride = 2
		}
		switch {
		case !s.Ident:
			s.block(b, "block"+strconv.Itoa(i*blocks+k+1), prev, next, stride, true)
		case k%2 == 0:
			s.residual(b, (i*blocks+k)/2+1, prev, next, stride)
		}
		prev = next
	}
}
