package space_test

import (
	"fmt"
	"testing"

	"igcsearch/space"
)

// counted is one convolution, or the linear layer, as the second count below
// and a space.Network both give it.
type counted struct {
	kernel                        string
	partitions, in, out, branches int
	h, w                          int  // of the output
	interleaved                   bool // takes every partitions-th channel
	bn, relu                      bool // what follows
	params, madds                 int
}

func (c counted) String() string {
	return fmt.Sprintf("%d × %s, %d → %d, %d branches, %d×%d, interleaved %v, BN %v, ReLU %v: %d, %d", c.partitions, c.kernel, c.in, c.out, c.branches, c.h, c.w, c.interleaved, c.bn, c.relu, c.params, c.madds)
}

// unfold takes a network apart into its convolutions, in their order: an IGC layer
// is two.
func unfold(n space.Network) (all []counted) {
	for _, l := range n.Layers {
		c := counted{kernel: fmt.Sprintf("%d×%d", l.KH, l.KW), partitions: l.Groups, in: l.In.C, out: l.Out.C, branches: l.Branches, h: l.Out.H, w: l.Out.W,
			interleaved: l.Interleaved, bn: l.Norm, relu: l.ReLU, params: l.Params, madds: int(l.MultiplyAdds)}
		switch l.Kind {
		case space.Conv:
			all = append(all, c)
		case space.IGC:
			first, second := c, c
			first.bn, first.relu = false, l.Between
			first.params = l.KH * l.KW * l.In.C * l.Out.C / l.Groups
			first.madds = first.params * l.Out.H * l.Out.W
			second.kernel, second.in, second.partitions, second.interleaved = "1×1", l.Out.C, l.Out.C/l.Groups, true
			second.params, second.madds = l.Params-first.params, int(l.MultiplyAdds)-first.madds
			all = append(all, first, second)
		case space.Linear:
			c.kernel, c.partitions, c.branches = "linear", 1, 1
			all = append(all, c)
		}
	}
	return all
}

// secondCount is what a network has by the formulas of docs/networks.md, written
// down once more, without the code of package space: a convolution of k positions
// in P partitions has k·in·out/P weights, and as many multiply–adds for each
// position of its output. ok is false where there is no such network.
func secondCount(s space.System, layout space.Layout, depth, side, classes int) (all []counted, ok bool) {
	igc, imagenet := s.Family == "IGC", layout == "imagenet"
	resNet := s.Ident || s.Family == "ResNet"

	// Partitions and channels of each stage.
	L, M, G := [4]int{}, [4]int{}, [4]int{}
	for i := range 4 {
		switch {
		case igc && (i == 0 || s.Stages[i].L > 0):
			L[i], M[i] = s.Stages[i].L, s.Stages[i].M
		case igc && s.DoublesL:
			L[i], M[i] = 2*L[i-1], M[i-1]
		case igc:
			L[i], M[i] = L[i-1], 2*M[i-1]
		case s.Family == "SumFusion":
			L[i], M[i] = 1, []int{8, 16, 32, 64}[i]
		default:
			L[i], M[i] = 1, []int{1, 2, 4, 8}[i]*s.Width
		}
		G[i] = L[i] * M[i]
	}

	// Blocks of a stage.
	stages, blocks := 3, (depth-2)/3
	switch {
	case layout == "flat":
		stages, blocks = 1, depth-2
	case imagenet:
		stages, blocks = 4, (depth-2)/4
	}
	if blocks < 1 || stages*blocks != depth-2 || resNet && blocks%2 != 0 || imagenet && !resNet {
		return nil, false
	}
	for i := stages; i < 4; i++ {
		if s.Stages[i].L > 0 {
			return nil, false
		}
	}

	r := map[space.Variant]int{"B2": 2, "B3": 3, "B4": 4}[s.Variant]
	h, w := side, side
	conv := func(kernel string, partitions, in, out int, bn, relu bool) {
		k := map[string]int{"1×1": 1, "1×3": 3, "3×1": 3, "3×3": 9, "5×5": 25, "7×7": 49}[kernel]
		if in%partitions != 0 || out%partitions != 0 {
			ok = false
		}
		n := k * in * out / partitions
		all = append(all, counted{kernel: kernel, partitions: partitions, in: in, out: out, branches: 1, h: h, w: w, bn: bn, relu: relu, params: n, madds: n * h * w})
	}
	secondary := func(kernel string, partitions, in, out int, relu bool) {
		conv(kernel, partitions, in, out, true, relu)
		all[len(all)-1].interleaved = true
	}
	half := func() { h, w = (h+1)/2, (w+1)/2 }

	ok = true
	g := G[0] // the channels so far
	if imagenet {
		if s.DoublesL {
			if g%2 != 0 || g/2%L[0] != 0 {
				return nil, false
			}
			g /= 2
		}
		half()
		conv("7×7", 1, 3, g, true, true)
		half() // max pool
	} else {
		conv("3×3", 1, 3, g, true, true)
	}
	block := func(i int, begins, relu bool) {
		l, m, in, out := L[i], M[i], g, G[i]
		// Secondary partitions: where M doubles beside an identity mapping on CIFAR,
		// as many as before.
		many := m
		if resNet && !imagenet && begins && i > 0 && l == L[i-1] && m == 2*M[i-1] {
			many = M[i-1]
		}
		stride := func() {
			if begins && i > 0 {
				half()
			}
		}
		switch {
		case s.Family == "SumFusion":
			stride()
			conv("3×3", 1, in, out, true, true)
			sum := &all[len(all)-1]
			sum.branches, sum.params, sum.madds = 4, 4*sum.params, 4*sum.madds
		case !igc:
			stride()
			conv("3×3", 1, in, out, true, relu)
		case s.Variant == "Swap":
			conv("1×1", l, in, out, false, false)
			stride()
			secondary("3×3", many, out, out, relu)
		case s.Variant == "Proj":
			stride()
			conv("3×3", l, in, out, false, false)
			conv("1×1", 1, out, out, true, relu)
		case r > 0:
			stride()
			conv("3×3", l, in, out/r, false, false)
			secondary("1×1", m/r, out/r, out, relu)
		case s.Variant == "1x3":
			conv("1×3", l, in, out, false, false)
			stride()
			conv("3×1", l, out, out, false, false)
			secondary("1×1", many, out, out, relu)
		case s.Variant == "5x5":
			stride()
			conv("5×5", l, in, out, false, false)
			secondary("1×1", many, out, out, relu)
		default:
			stride()
			conv("3×3", l, in, out, false, s.Variant == "ReLU")
			secondary("1×1", many, out, out, relu)
		}
		g = out
	}
	for i := range stages {
		if r > 0 && M[i]%r != 0 {
			return nil, false
		}
		if !resNet {
			for k := range blocks {
				block(i, k == 0, true)
			}
			continue
		}
		for unit := range blocks / 2 {
			g0, h0, w0 := g, h, w
			block(i, unit == 0, true)
			block(i, false, false)
			if g != g0 || h != h0 || w != w0 {
				conv("1×1", L[i], g0, g, true, false)
			}
		}
	}
	all = append(all, counted{kernel: "linear", partitions: 1, in: g, out: classes, branches: 1, h: 1, w: 1, params: g*classes + classes, madds: g * classes})
	return all, ok
}

// checkCount compares a network with the second count, and reports whether there is one.
func checkCount(t *testing.T, s space.System, layout space.Layout, depth, side, classes int) bool {
	t.Helper()
	want, ok := secondCount(s, layout, depth, side, classes)
	n, err := s.Network(space.Plan{Layout: layout, Depth: depth, In: space.Shape{C: 3, H: side, W: side}, Classes: classes})
	if ok != (err == nil) {
		t.Fatalf("%s, %s, D = %d: the second count says %v, but %v", s, layout, depth, ok, err)
	}
	if !ok {
		return false
	}
	got := unfold(n)
	params, madds := 0, 0
	for i, w := range want {
		if i < len(got) && got[i] != w {
			t.Fatalf("%s, %s, D = %d: convolution %d is\n%v, the second count has\n%v", s, layout, depth, i, got[i], w)
		}
		params, madds = params+w.params, madds+w.madds
	}
	if len(got) != len(want) || n.Params() != params || n.MultiplyAdds() != int64(madds) {
		t.Fatalf("%s, %s, D = %d: %d convolutions, %d parameters, %d multiply–adds; the second count has %d, %d, %d",
			s, layout, depth, len(got), n.Params(), n.MultiplyAdds(), len(want), params, madds)
	}
	return true
}

var (
	families = []space.Family{space.FamilyIGC, space.FamilyRegConv, space.FamilyResNet, space.FamilySumFusion}
	variants = append([]space.Variant{space.Bottleneck(2), space.Bottleneck(3), space.Bottleneck(4)}, space.Variants...)
)

// TestEveryCombination holds all combinations of family, variant, layout,
// shortcuts and the ways to give partitions to the second count.
func TestEveryCombination(t *testing.T) {
	t.Parallel()
	var systems []space.System
	for _, f := range families {
		for _, ident := range []bool{false, true} {
			switch {
			case f == space.FamilySumFusion && ident || f == space.FamilyResNet && !ident: // there are none
			case f != space.FamilyIGC:
				systems = append(systems, space.System{Family: f, Width: 18, Ident: ident})
			default:
				for _, v := range variants {
					for _, stages := range [][4]space.Pair{
						{{L: 3, M: 4}}, {{L: 5, M: 12}}, {{L: 4, M: 1}}, {{L: 1, M: 7}},
						{{L: 4, M: 12}, {L: 4, M: 24}, {L: 4, M: 24}},                // as it doubles, then not
						{{L: 4, M: 12}, {L: 6, M: 12}, {L: 12, M: 12}},               // L that changes
						{{L: 4, M: 3}, {L: 4, M: 5}},                                 // channels that do not double
						{{L: 4, M: 4}, {L: 8, M: 4}, {L: 4, M: 16}, {L: 16, M: 8}},   // of four stages
						{{L: 2, M: 12}, {L: 3, M: 24}, {L: 3, M: 24}, {L: 3, M: 48}}, // the same
					} {
						systems = append(systems, space.System{Family: f, Variant: v, Ident: ident, Stages: stages})
						if stages[1] == (space.Pair{}) {
							systems = append(systems, space.System{Family: f, Variant: v, Ident: ident, Stages: stages, DoublesL: true})
						}
					}
				}
			}
		}
	}
	type combination struct {
		family  space.Family
		variant space.Variant
		layout  space.Layout
		ident   bool
	}
	built := map[combination]int{}
	for _, s := range systems {
		for _, layout := range space.Layouts {
			for _, depth := range []int{3, 4, 5, 8, 10, 14, 18, 20} {
				for _, side := range []int{32, 33, 1} {
					if checkCount(t, s, layout, depth, side, 10) {
						built[combination{s.Family, s.Variant, layout, s.Ident}]++
					}
				}
			}
		}
	}
	// IGC: every variant in three layouts with identity mappings and two without;
	// RegConv 3 and 2, ResNet 3, SumFusion 2.
	if want := 5*len(variants) + 5 + 3 + 2; len(built) != want {
		t.Errorf("%d combinations were built, want %d: %v", len(built), want, built)
	}
}

// FuzzNetwork does the same for any numbers.
func FuzzNetwork(f *testing.F) {
	f.Add(uint8(0), uint8(7), uint8(1), true, false, uint8(3), uint8(4), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(8), uint8(32), uint8(10))   // 5×5 in stage 2
	f.Add(uint8(0), uint8(8), uint8(1), true, false, uint8(24), uint8(2), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(8), uint8(9), uint8(100))  // a ReLU between
	f.Add(uint8(0), uint8(3), uint8(2), true, true, uint8(100), uint8(2), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(18), uint8(224), uint8(7)) // IGC-L100M2
	f.Add(uint8(0), uint8(3), uint8(1), true, false, uint8(4), uint8(3), uint8(4), uint8(5), uint8(2), uint8(16), uint8(0), uint8(0), uint8(8), uint8(8), uint8(3))
	f.Add(uint8(1), uint8(0), uint8(1), true, false, uint8(16), uint8(1), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(50), uint8(32), uint8(10))
	f.Add(uint8(3), uint8(0), uint8(1), false, false, uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(0), uint8(20), uint8(32), uint8(10))
	f.Fuzz(func(t *testing.T, family, variant, layout uint8, ident, doublesL bool, l1, m1, l2, m2, l3, m3, l4, m4, depth, side, classes uint8) {
		s := space.System{Family: families[int(family)%len(families)], Ident: ident}
		switch s.Family {
		case space.FamilySumFusion:
			s.Ident = false
		case space.FamilyIGC:
			s.Variant = variants[int(variant)%len(variants)]
			for i, p := range []space.Pair{{L: int(l1), M: int(m1)}, {L: int(l2), M: int(m2)}, {L: int(l3), M: int(m3)}, {L: int(l4), M: int(m4)}} {
				if p.L < 1 || p.M < 1 {
					break
				}
				s.Stages[i] = p
			}
			s.DoublesL = doublesL && s.Stages[1] == (space.Pair{})
		default:
			s.Width, s.Ident = int(l1), ident || s.Family == space.FamilyResNet
		}
		if s.Stages[0].L+s.Width == 0 && s.Family != space.FamilySumFusion || depth < 1 || side < 1 || classes < 1 {
			t.Skip("no system")
		}
		if name, err := space.ParseSystem(s.String()); err != nil || name != s {
			t.Fatalf("%+v is %s, which is %+v, %v", s, s, name, err)
		}
		checkCount(t, s, space.Layouts[int(layout)%len(space.Layouts)], int(depth), int(side), int(classes))
	})
}
