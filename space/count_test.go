package space_test

import (
	"fmt"
	"testing"

	"igcsearch/space"
)

// counted is one convolution or the linear layer. The second count below and unfold both give it.
type counted struct {
	kernel                        string
	partitions, in, out, branches int
	h, w                          int  // rows and columns of the output
	stepIn, stepOut               int  // how far apart the channels of a partition are
	bn, relu                      bool // whether batch norm and a ReLU follow
	params, madds                 int
}

func (c counted) String() string {
	return fmt.Sprintf("%d × %s, %d → %d, %d branches, %d×%d, steps %d and %d, BN %v, ReLU %v: %d, %d",
		c.partitions, c.kernel, c.in, c.out, c.branches, c.h, c.w, c.stepIn, c.stepOut, c.bn, c.relu, c.params, c.madds)
}

// unfold lists the convolutions of a network in their order. An IGC layer has two or more.
func unfold(n space.Network) (all []counted) {
	for _, l := range n.Layers {
		c := counted{kernel: fmt.Sprintf("%d×%d", l.KH, l.KW), partitions: l.Groups, in: l.In.C, out: l.Out.C,
			branches: l.Branches, h: l.Out.H, w: l.Out.W,
			stepIn: l.StepIn, stepOut: l.StepOut, bn: l.Norm, relu: l.ReLU, params: l.Params, madds: int(l.MultiplyAdds)}
		switch l.Kind {
		case space.Conv:
			all = append(all, c)
		case space.IGC:
			first := c
			first.bn, first.relu = false, l.Between
			first.params = l.KH * l.KW * l.In.C * l.Out.C / l.Groups
			first.madds = first.params * l.Out.H * l.Out.W
			all = append(all, first)
			params, madds := l.Params-first.params, int(l.MultiplyAdds)-first.madds
			for i, m := range l.Mixes {
				mix := c
				mix.kernel, mix.in, mix.partitions = "1×1", l.Out.C, l.Out.C/m.K
				mix.stepIn, mix.stepOut = m.Step, m.Step
				if mix.bn, mix.relu = false, false; i == len(l.Mixes)-1 {
					mix.bn, mix.relu = l.Norm, l.ReLU
				}
				if mix.params, mix.madds = l.Out.C*m.K, l.Out.C*m.K*l.Out.H*l.Out.W; i == len(l.Mixes)-1 {
					mix.params, mix.madds = params, madds // so that their sum is that of the layer
				}
				params, madds = params-mix.params, madds-mix.madds
				all = append(all, mix)
			}
		case space.Linear:
			c.kernel, c.partitions, c.branches, c.stepIn, c.stepOut = "linear", 1, 1, 1, 1
			all = append(all, c)
		}
	}
	return all
}

// secondCount counts a network by the formulas of docs/networks.md, without the code of package
// space: a convolution of k positions in P partitions has k·in·out/P weights, and as many
// multiply–adds for each position of its output. ok is false if there is no such network.
func secondCount(s space.System, layout space.Layout, depth, side, classes int) (all []counted, ok bool) {
	imagenet, resNet := layout == "imagenet", s.Ident || s.Family == "ResNet"
	units := s.Family == "RegNetX" || s.Family == "ShuffleNet" || s.Family == "IGCV3" // a block is a residual unit
	stages, blocks := 3, (depth-2)/3                                                  // blocks of a stage
	switch {
	case layout == "flat":
		stages, blocks = 1, depth-2
	case imagenet:
		stages, blocks = 4, (depth-2)/4
	}
	if blocks < 1 || stages*blocks != depth-2 || resNet && blocks%2 != 0 || imagenet && !resNet && !units ||
		s.Family == "IGCV3" && stages > 1 && blocks < 2 {
		return nil, false
	}
	for i := stages; i < 4; i++ {
		if s.Stages[i].L > 0 {
			return nil, false
		}
	}
	c := newCounter(s, layout, side)
	if c == nil {
		return nil, false
	}
	for i := range stages {
		if r := reductions[s.Variant]; r > 0 && c.M[i]%r != 0 {
			return nil, false
		}
		if !resNet {
			for k := range blocks {
				g, h, w := c.g, c.h, c.w
				c.block(i, k == 0, !units)
				if (c.g != g || c.h != h || c.w != w) && units && s.Family != "IGCV3" {
					c.conv("1×1", 1, g, c.g, true, false)
				}
			}
			continue
		}
		for unit := range blocks / 2 {
			g, h, w := c.g, c.h, c.w
			c.block(i, unit == 0, true)
			c.block(i, false, false)
			if c.g != g || c.h != h || c.w != w {
				c.conv("1×1", c.L[i], g, c.g, true, false)
			}
		}
	}
	c.all = append(c.all, counted{kernel: "linear", partitions: 1, in: c.g, out: classes, branches: 1, h: 1, w: 1,
		stepIn: 1, stepOut: 1, params: c.g*classes + classes, madds: c.g * classes})
	return c.all, !c.wrong
}

// reductions has r of each bottleneck.
var reductions = map[space.Variant]int{"B2": 2, "B3": 3, "B4": 4}

// counter counts the convolutions of a network, one after the other.
type counter struct {
	space.System
	layout  space.Layout
	L, M, G [4]int // partitions, their channels and the width of each stage
	g, h, w int    // channels, rows and columns that the next convolution reads
	all     []counted
	wrong   bool // whether partitions do not divide the channels of a convolution
}

// newCounter counts what comes before the first stage. It returns nil if there is no such network.
func newCounter(s space.System, layout space.Layout, side int) *counter {
	c := &counter{System: s, layout: layout, h: side, w: side}
	for i := range 4 {
		switch {
		case s.Family == "IGC" && (i == 0 || s.Stages[i].L > 0):
			c.L[i], c.M[i] = s.Stages[i].L, s.Stages[i].M
		case s.Family == "IGC" && s.DoublesL:
			c.L[i], c.M[i] = 2*c.L[i-1], c.M[i-1]
		case s.Family == "IGC":
			c.L[i], c.M[i] = c.L[i-1], 2*c.M[i-1]
		case s.Family == "SumFusion":
			c.L[i], c.M[i] = 1, []int{8, 16, 32, 64}[i]
		case s.Family == "IGCV2":
			c.L[i], c.M[i] = 1, []int{1, 2, 4, 8}[i]*s.Numbers[0]
			for _, k := range s.Numbers[1:] {
				c.L[i] *= max(k, 1)
			}
		case s.Family == "Monarch":
			c.L[i], c.M[i] = s.Numbers[0], []int{1, 2, 4, 8}[i]*s.Numbers[0]
		default:
			c.L[i], c.M[i] = 1, []int{1, 2, 4, 8}[i]*s.Numbers[0]
		}
		c.G[i] = c.L[i] * c.M[i]
	}
	c.g = c.G[0]
	if layout != "imagenet" {
		c.conv("3×3", 1, 3, c.g, true, true)
		return c
	}
	if s.DoublesL {
		if c.g%2 != 0 || c.g/2%c.L[0] != 0 {
			return nil
		}
		c.g /= 2
	}
	c.half()
	c.conv("7×7", 1, 3, c.g, true, true)
	c.half() // the max pool
	return c
}

// half halves the rows and columns.
func (c *counter) half() { c.h, c.w = (c.h+1)/2, (c.w+1)/2 }

func (c *counter) conv(kernel string, partitions, in, out int, bn, relu bool) {
	k := map[string]int{"1×1": 1, "1×3": 3, "3×1": 3, "3×3": 9, "5×5": 25, "7×7": 49}[kernel]
	if in%partitions != 0 || out%partitions != 0 {
		c.wrong = true
	}
	n := k * in * out / partitions
	c.all = append(c.all, counted{kernel: kernel, partitions: partitions, in: in, out: out, branches: 1,
		h: c.h, w: c.w, stepIn: 1, stepOut: 1, bn: bn, relu: relu, params: n, madds: n * c.h * c.w})
}

func (c *counter) secondary(kernel string, partitions, in, out int, relu bool) {
	c.conv(kernel, partitions, in, out, true, relu)
	c.steps(partitions, partitions)
}

// steps sets the steps of the last convolution.
func (c *counter) steps(in, out int) {
	c.all[len(c.all)-1].stepIn, c.all[len(c.all)-1].stepOut = in, out
}

// block counts a block of stage i. begins is set for the first block of the stage, and relu if a
// ReLU ends the block.
func (c *counter) block(i int, begins, relu bool) {
	l, m, in, out := c.L[i], c.M[i], c.g, c.G[i]
	// Where M doubles beside an identity mapping, CIFAR keeps the number of secondary partitions.
	many := m
	identity := (c.Ident || c.Family == "ResNet") && c.layout != "imagenet"
	if identity && begins && i > 0 && l == c.L[i-1] && m == 2*c.M[i-1] {
		many = c.M[i-1]
	}
	stride := func() {
		if begins && i > 0 {
			c.half()
		}
	}
	switch r := reductions[c.Variant]; {
	case c.Family == "SumFusion":
		stride()
		c.conv("3×3", 1, in, out, true, true)
		sum := &c.all[len(c.all)-1]
		sum.branches, sum.params, sum.madds = 4, 4*sum.params, 4*sum.madds
	case c.Family == "RegConv" || c.Family == "ResNet":
		stride()
		c.conv("3×3", 1, in, out, true, relu)
	case c.Family == "IGCV2" || c.Family == "Monarch":
		kernel, ks := "3×3", []int{l}
		if c.Family == "Monarch" {
			kernel = "1×1"
		} else {
			for ks = c.Numbers[1:]; ks[len(ks)-1] == 0; ks = ks[:len(ks)-1] {
			}
		}
		stride()
		c.conv(kernel, l, in, out, false, false)
		step := m
		for j, k := range ks {
			c.conv("1×1", out/k, out, out, j == len(ks)-1, j == len(ks)-1 && relu)
			c.steps(step, step)
			step *= k
		}
		c.wrong = c.wrong || step != out
	case c.Family == "IGCV3":
		r, g1, g2 := c.Numbers[1], c.Numbers[2], c.Numbers[3]
		c.conv("1×1", g1, in, r*in, true, false)
		c.steps(1, g1)
		stride()
		c.conv("3×3", r*in, r*in, r*in, true, true)
		c.conv("1×1", g2, r*in, out, true, false)
		c.steps(1, g2)
	case c.Family == "RegNetX":
		c.conv("1×1", 1, in, out, true, true)
		stride()
		c.wrong = c.wrong || out%c.Numbers[1] != 0
		c.conv("3×3", max(1, out/c.Numbers[1]), out, out, true, true)
		c.conv("1×1", 1, out, out, true, false)
	case c.Family == "ShuffleNet":
		g := c.Numbers[1]
		c.wrong = c.wrong || out%4 != 0
		c.conv("1×1", g, in, out/4, true, true)
		stride()
		c.conv("3×3", max(1, out/4), out/4, out/4, true, false)
		c.conv("1×1", g, out/4, out, true, false)
		c.steps(g, 1)
	case c.Variant == "1x1":
		stride()
		c.conv("1×1", l, in, out, false, false)
		c.secondary("1×1", many, out, out, relu)
	case c.Variant == "Swap":
		c.conv("1×1", l, in, out, false, false)
		stride()
		c.secondary("3×3", many, out, out, relu)
	case c.Variant == "Proj":
		stride()
		c.conv("3×3", l, in, out, false, false)
		c.conv("1×1", 1, out, out, true, relu)
	case r > 0:
		stride()
		c.conv("3×3", l, in, out/r, false, false)
		c.secondary("1×1", m/r, out/r, out, relu)
	case c.Variant == "1x3":
		c.conv("1×3", l, in, out, false, false)
		stride()
		c.conv("3×1", l, out, out, false, false)
		c.secondary("1×1", many, out, out, relu)
	case c.Variant == "5x5":
		stride()
		c.conv("5×5", l, in, out, false, false)
		c.secondary("1×1", many, out, out, relu)
	default:
		stride()
		c.conv("3×3", l, in, out, false, c.Variant == "ReLU")
		c.secondary("1×1", many, out, out, relu)
	}
	c.g = out
}

// checkCount compares a network with the second count, and reports whether the network exists.
func checkCount(t *testing.T, s space.System, layout space.Layout, depth, side, classes int) bool {
	t.Helper()
	want, ok := secondCount(s, layout, depth, side, classes)
	in := space.Shape{C: 3, H: side, W: side}
	n, err := s.Network(space.Plan{Layout: layout, Depth: depth, In: in, Classes: classes})
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
			t.Fatalf("%s, %s, D = %d: convolution %d is\n%v, the second count has\n%v",
				s, layout, depth, i, got[i], w)
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
	families = space.Families()
	variants = append([]space.Variant{space.Bottleneck(2), space.Bottleneck(3), space.Bottleneck(4)}, space.Variants...)
)

// numbers has some numbers of each family.
var numbers = map[space.Family][]space.Numbers{
	space.FamilyRegConv: {{18}}, space.FamilyResNet: {{18}}, space.FamilySumFusion: {{}},
	space.FamilyIGCV2:      {{1, 2}, {3, 2, 2}, {2, 3, 2, 5}, {1, 5, 6, 6}},
	space.FamilyMonarch:    {{1}, {4}, {5}},
	space.FamilyIGCV3:      {{12, 6, 2, 2}, {12, 1, 3, 4}, {8, 2, 1, 8}, {8, 2, 3, 2}},
	space.FamilyRegNetX:    {{12, 4}, {12, 12}, {7, 1}, {12, 5}},
	space.FamilyShuffleNet: {{12, 3}, {32, 2}, {40, 10}, {40, 4}, {6, 1}},
}

// TestEveryCombination compares the networks with the second count, for all combinations of family,
// variant, layout, identity mappings and ways to give the pairs.
func TestEveryCombination(t *testing.T) {
	t.Parallel()
	var systems []space.System
	for _, f := range families {
		for _, ident := range []bool{false, true} {
			switch {
			case f != space.FamilyIGC:
				for _, n := range numbers[f] {
					s := space.System{Family: f, Numbers: n, Ident: ident}
					if parsed, err := space.ParseSystem(s.String()); err == nil && parsed == s {
						systems = append(systems, s)
					}
				}
			default:
				for _, v := range variants {
					for _, stages := range [][4]space.Pair{
						{{L: 3, M: 4}}, {{L: 5, M: 12}}, {{L: 4, M: 1}}, {{L: 1, M: 7}},
						{{L: 4, M: 12}, {L: 4, M: 24}, {L: 4, M: 24}},                // M doubles once
						{{L: 4, M: 12}, {L: 6, M: 12}, {L: 12, M: 12}},               // L changes
						{{L: 4, M: 3}, {L: 4, M: 5}},                                 // the width does not double
						{{L: 4, M: 4}, {L: 8, M: 4}, {L: 4, M: 16}, {L: 16, M: 8}},   // four stages
						{{L: 2, M: 12}, {L: 3, M: 24}, {L: 3, M: 24}, {L: 3, M: 48}}, // four stages
					} {
						s := space.System{Family: f, Variant: v, Ident: ident, Stages: stages}
						systems = append(systems, s)
						if s.DoublesL = stages[1] == (space.Pair{}); s.DoublesL {
							systems = append(systems, s)
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
	// IGC has every variant in three layouts with identity mappings and in two without;
	// RegConv, IGCV2 and Monarch have 3 and 2, ResNet 3, SumFusion 2, and the three families of units 3.
	if want := 5*len(variants) + 3*5 + 3 + 2 + 3*3; len(built) != want {
		t.Errorf("%d combinations were built, want %d: %v", len(built), want, built)
	}
}

// FuzzNetwork holds the networks of any numbers to the second count. A seed has the indices of
// family, variant and layout; whether the network has identity mappings and doubles L; the pairs of
// four stages, where 0 ends them; and depth, side and classes.
func FuzzNetwork(f *testing.F) {
	seed := func(family, variant, layout uint8, ident, doublesL bool, pairs [8]uint8, depth, side, classes uint8) {
		f.Add(family, variant, layout, ident, doublesL, pairs[0], pairs[1], pairs[2], pairs[3], pairs[4], pairs[5],
			pairs[6], pairs[7], depth, side, classes)
	}
	seed(0, 7, 1, true, false, [8]uint8{3, 4}, 8, 32, 10)   // 5×5 kernels
	seed(0, 8, 1, true, false, [8]uint8{24, 2}, 8, 9, 100)  // a ReLU between the convolutions
	seed(0, 3, 2, true, true, [8]uint8{100, 2}, 18, 224, 7) // IGC-L100M2
	seed(0, 3, 1, true, false, [8]uint8{4, 3, 4, 5, 2, 16}, 8, 8, 3)
	seed(1, 0, 1, true, false, [8]uint8{16, 1}, 50, 32, 10)
	seed(3, 0, 1, false, false, [8]uint8{}, 20, 32, 10)
	seed(0, 9, 0, false, false, [8]uint8{8, 8}, 8, 32, 10)        // 1×1 kernels
	seed(4, 0, 0, false, false, [8]uint8{1, 5, 6, 6}, 8, 32, 100) // IGCV2-M1K5K6K6
	seed(4, 0, 1, true, false, [8]uint8{2, 2, 3}, 14, 8, 10)      // identity mappings
	seed(5, 0, 2, true, false, [8]uint8{3}, 10, 40, 10)           // Monarch
	seed(6, 0, 1, false, false, [8]uint8{12, 6, 2, 4}, 8, 32, 10) // IGCV3
	seed(7, 0, 1, false, false, [8]uint8{24, 8}, 8, 33, 10)       // RegNetX
	seed(8, 0, 2, false, false, [8]uint8{24, 3}, 10, 32, 10)      // ShuffleNet
	f.Fuzz(func(t *testing.T, family, variant, layout uint8, ident, doublesL bool,
		l1, m1, l2, m2, l3, m3, l4, m4, depth, side, classes uint8) {
		s := space.System{Family: families[int(family)%len(families)], Ident: ident}
		switch s.Family {
		case space.FamilySumFusion:
			s.Ident = false
		case space.FamilyIGCV2, space.FamilyMonarch, space.FamilyIGCV3, space.FamilyRegNetX, space.FamilyShuffleNet:
			copy(s.Numbers[:], []int{int(l1), int(m1), int(l2), int(m2), int(l3), int(m3), int(l4), int(m4)})
			parsed, err := space.ParseSystem(s.String())
			if err != nil || parsed != s {
				t.Skip("no numbers of the family")
			}
		case space.FamilyIGC:
			s.Variant = variants[int(variant)%len(variants)]
			for i, p := range [4][2]uint8{{l1, m1}, {l2, m2}, {l3, m3}, {l4, m4}} {
				if p[0] < 1 || p[1] < 1 {
					break
				}
				s.Stages[i] = space.Pair{L: int(p[0]), M: int(p[1])}
			}
			s.DoublesL = doublesL && s.Stages[1] == (space.Pair{})
		default:
			s.Numbers[0], s.Ident = int(l1), ident || s.Family == space.FamilyResNet
		}
		if s.Stages[0].L+s.Numbers[0] == 0 && s.Family != space.FamilySumFusion || depth < 1 || side < 1 || classes < 1 {
			t.Skip("no system")
		}
		if name, err := space.ParseSystem(s.String()); err != nil || name != s {
			t.Fatalf("%+v is %s, which is %+v, %v", s, s, name, err)
		}
		checkCount(t, s, space.Layouts[int(layout)%len(space.Layouts)], int(depth), int(side), int(classes))
	})
}
