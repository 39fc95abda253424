package space_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"testing"

	"igcsearch/space"

	"pgregory.net/rapid"
)

// blockFormulas has the parameters of a block by the formulas of docs/networks.md, with S = 9. They
// return 0 if the numbers do not go together.
var blockFormulas = map[space.Family]func(n space.Numbers) int{
	space.FamilyRegConv:   func(n space.Numbers) int { return 9 * n[0] * n[0] },
	space.FamilyResNet:    func(n space.Numbers) int { return 9 * n[0] * n[0] },
	space.FamilySumFusion: func(space.Numbers) int { return 4 * 9 * 8 * 8 },
	space.FamilyIGCV2: func(n space.Numbers) int {
		c, sum := n[0], 9*n[0]
		for _, k := range n[1:] {
			c, sum = c*max(k, 1), sum+k
		}
		return c * sum
	},
	space.FamilyMonarch: func(n space.Numbers) int { return 2 * n[0] * n[0] * n[0] },
	space.FamilyIGCV3: func(n space.Numbers) int {
		c, r, g1, g2 := n[0], n[1], n[2], n[3]
		if c%g1+c%g2 > 0 {
			return 0
		}
		return r * c * (c/g1 + 9 + c/g2)
	},
	space.FamilyRegNetX: func(n space.Numbers) int {
		if n[0]%n[1] > 0 {
			return 0
		}
		return 2*n[0]*n[0] + 9*n[0]*n[1]
	},
	space.FamilyShuffleNet: func(n space.Numbers) int {
		if n[0]%(4*n[1]) > 0 {
			return 0
		}
		return 2*n[0]*(n[0]/4)/n[1] + 9*n[0]/4
	},
}

// TestBlockParams compares the blocks of all systems of small numbers with the formulas, and with the
// layers of networks.
func TestBlockParams(t *testing.T) {
	t.Parallel()
	check := func(s space.System, want int) {
		t.Helper()
		// The second network has one block more.
		one, err := s.Network(space.Plan{Layout: space.Flat, Depth: 4, In: cifar, Classes: 10})
		two, err2 := s.Network(space.Plan{Layout: space.Flat, Depth: 6, In: cifar, Classes: 10})
		if (err != nil) != (want == 0) || (err2 != nil) != (want == 0) {
			t.Fatalf("%s: %d parameters by the formula, but %v, %v", s, want, err, err2)
		}
		if want == 0 {
			return
		}
		if got := (two.Params() - one.Params()) / 2; got != want || s.BlockParams() != want {
			t.Errorf("%s: a block has %d parameters, by its factors %d, by the formula %d", s, got, s.BlockParams(), want)
		}
		if got := two.MultiplyAdds() - one.MultiplyAdds(); got != 2*1024*int64(want) {
			t.Errorf("%s: two blocks have %d multiply–adds, want 2·1024·%d", s, got, want)
		}
	}
	tried := 0
	for f, formula := range blockFormulas {
		for _, n := range smallNumbers(f) {
			check(space.System{Family: f, Numbers: n, Ident: f == space.FamilyResNet}, formula(n))
			tried++
		}
	}
	for l := 1; l <= 12; l++ {
		for m := 1; m <= 12; m++ {
			p := space.Pair{L: l, M: m}
			check(space.PairSystem(p), p.Params(9))
			check(space.System{Family: space.FamilyIGC, Stages: [4]space.Pair{p}, Variant: space.Pointwise}, p.Params(1))
		}
	}
	if tried < 4000 {
		t.Errorf("only %d systems were tried", tried)
	}
}

// smallNumbers lists all numbers up to 12 that names of a family have, of IGCV2 up to 4 in at most four
// factors.
func smallNumbers(f space.Family) (list []space.Numbers) {
	count := map[space.Family]int{space.FamilyIGCV3: 4, space.FamilyRegNetX: 2, space.FamilyShuffleNet: 2,
		space.FamilySumFusion: 0, space.FamilyIGCV2: 5}[f]
	if f == space.FamilyRegConv || f == space.FamilyResNet || f == space.FamilyMonarch {
		count = 1
	}
	var each func(n space.Numbers, at int)
	each = func(n space.Numbers, at int) {
		if at == count || f == space.FamilyIGCV2 && at > 1 {
			list = append(list, n)
		}
		if at == count {
			return
		}
		from, to := 1, 12
		switch {
		case f == space.FamilyIGCV2 && at > 0:
			from, to = 2, 4
		case f == space.FamilyShuffleNet && at == 0:
			to = 48
		case f == space.FamilyIGCV3 && at == 1:
			to = 3
		}
		for n[at] = from; n[at] <= to; n[at]++ {
			each(n, at+1)
		}
	}
	each(space.Numbers{}, 0)
	return list
}

// everySystem lists all systems of a family whose blocks have at most `most` parameters by the
// formulas, and whose outputs depend on all inputs. It tries all numbers.
func everySystem(f space.Family, most int) (list []space.System) {
	formula := blockFormulas[f]
	add := func(numbers ...int) {
		var n space.Numbers
		copy(n[:], numbers)
		if c := formula(n); c > 0 && c <= most {
			list = append(list, space.System{Family: f, Numbers: n, Ident: f == space.FamilyResNet})
		}
	}
	switch f {
	case space.FamilyIGC:
		for l := 1; l*l <= most; l++ {
			for m := 1; l*m*m <= most; m++ {
				if p := (space.Pair{L: l, M: m}); p.Params(9) <= most {
					list = append(list, space.PairSystem(p))
				}
			}
		}
	case space.FamilySumFusion:
		add()
	case space.FamilyRegConv, space.FamilyResNet, space.FamilyMonarch:
		for w := 1; w <= most; w++ {
			add(w)
		}
	case space.FamilyIGCV2:
		var each func(numbers []int, c, least int)
		each = func(numbers []int, c, least int) {
			for k := least; c*k*k <= most; k++ { // C·K ≤ T
				add(append(slices.Clip(numbers), k)...)
				each(append(slices.Clip(numbers), k), c*k, k)
			}
		}
		for m := 1; m*m <= most; m++ {
			each([]int{m}, m, 2)
		}
	case space.FamilyRegNetX:
		for w := 1; w*w <= most; w++ {
			for g := 1; g <= w; g++ {
				add(w, g)
			}
		}
	case space.FamilyShuffleNet:
		for w := 1; w <= most; w++ {
			for g := 1; 4*g*g <= w; g++ {
				add(w, g)
			}
		}
	case space.FamilyIGCV3:
		for c := 1; 9*c <= most; c++ {
			for r := 1; 9*r*c <= most; r++ {
				for g1 := 1; g1 <= c; g1++ {
					for g2 := 1; g2 <= c && g1*g2 <= r*c; g2++ {
						add(c, r, g1, g2)
					}
				}
			}
		}
	}
	return list
}

func TestSystemBudget(t *testing.T) {
	t.Parallel()
	t.Run("T = 4672 has the products of IGCV2 that are wider than every pair", func(t *testing.T) {
		b := space.SystemBudget{Family: space.FamilyIGCV2, Params: 4672, Tolerance: 0.024}
		list := b.Systems(context.Background())
		at := slices.IndexFunc(list, func(s space.System) bool { return s.String() == "IGCV2-M1K5K6K6" })
		if at < 0 || list[at].Width() != 180 || list[at].BlockParams() != 4680 {
			t.Errorf("M1K5K6K6 is number %d of %v", at, list)
		}
	})
	t.Run("Systems finds what brute force finds, of blocks", rapid.MakeCheck(func(t *rapid.T) {
		b := space.SystemBudget{Family: rapid.SampledFrom(space.Families()).Draw(t, "family"),
			Tolerance: rapid.SampledFrom([]float64{0, 0.024, 0.3}).Draw(t, "tolerance")}
		b.Params = rapid.IntRange(1, 700).Draw(t, "T")
		want := map[space.System]bool{}
		for _, s := range everySystem(b.Family, 2*b.Params) {
			if off := float64(s.BlockParams())/float64(b.Params) - 1; math.Abs(off) <= b.Tolerance {
				want[s] = true
			}
		}
		sameSystems(t, b, maps.Clone(want))
		// The multiply–adds of 12 positions are twelve times the parameters.
		b.Params, b.MultiplyAdds, b.Plan.In = 0, 12*int64(b.Params), space.Shape{C: 3, H: 3, W: 4}
		sameSystems(t, b, want)
	}))
	t.Run("Systems finds what brute force finds, of networks", rapid.MakeCheck(func(t *rapid.T) {
		b := space.SystemBudget{Family: rapid.SampledFrom(space.Families()).Draw(t, "family"), Whole: true,
			Tolerance: 0.1, Plan: rapid.SampledFrom([]space.Plan{
				{Layout: space.Flat, Depth: 4, In: space.Shape{C: 3, H: 5, W: 4}, Classes: 3},
				{Layout: space.Stages, Depth: 8, In: space.Shape{C: 1, H: 5, W: 4}, Classes: 2},
			}).Draw(t, "plan")}
		b.Ident = b.Family == space.FamilyIGC && rapid.Bool().Draw(t, "ident")
		params := rapid.Bool().Draw(t, "of parameters")
		if params {
			b.Params = rapid.IntRange(100, 900).Draw(t, "params")
		} else {
			b.MultiplyAdds = int64(rapid.IntRange(1000, 8000).Draw(t, "multiply–adds"))
		}
		want := map[space.System]bool{}
		for _, s := range everySystem(b.Family, 500) { // a network has two such blocks or more
			s.Ident = s.Ident || b.Ident
			n, err := s.Network(b.Plan)
			if err != nil {
				t.Fatal(err)
			}
			cost := n.MultiplyAdds()
			if params {
				cost = int64(n.Params())
			}
			if off := float64(cost)/float64(max(int64(b.Params), b.MultiplyAdds)) - 1; math.Abs(off) <= b.Tolerance {
				want[s] = true
			}
		}
		sameSystems(t, b, want)
	}))
	t.Run("an invalid budget gives no systems", func(t *testing.T) {
		for name, b := range map[string]space.SystemBudget{
			"family":      {Family: "VGG", Params: 100},
			"no budget":   {Family: space.FamilyIGCV2},
			"both":        {Family: space.FamilyIGCV2, Params: 1, MultiplyAdds: 1},
			"negative":    {Family: space.FamilyIGCV2, Params: -1},
			"too large":   {Family: space.FamilyIGCV2, Params: 200_001},
			"tolerance":   {Family: space.FamilyIGCV2, Params: 100, Tolerance: math.NaN()},
			"no pictures": {Family: space.FamilyIGCV2, MultiplyAdds: 100},
			"identity":    {Family: space.FamilyRegNetX, Params: 100, Ident: true},
			"plan":        {Family: space.FamilyRegNetX, Params: 100, Whole: true, Plan: inStages(9)},
		} {
			if b.Validate() == nil || b.Systems(context.Background()) != nil {
				t.Errorf("%s: %v, %d systems", name, b.Validate(), len(b.Systems(context.Background())))
			}
		}
	})
}

// sameSystems checks the systems of a budget, and their order.
func sameSystems(t *rapid.T, b space.SystemBudget, want map[space.System]bool) {
	got := b.Systems(context.Background())
	if err := b.Validate(); err != nil {
		t.Fatal(err)
	}
	for i, s := range got {
		if !want[s] {
			t.Fatalf("%+v: %v is not wanted, or twice", b, s)
		}
		delete(want, s)
		if i > 0 && s.Width() > got[i-1].Width() {
			t.Fatalf("%+v: %v comes after %v", b, s, got[i-1])
		}
		if again, err := space.ParseSystem(s.String()); err != nil || again != s {
			t.Fatalf("%v is read as %v, %v", s, again, err)
		}
	}
	if len(want) > 0 {
		t.Fatalf("%+v: %d are missing: %v", b, len(want), want)
	}
}

// TestWidthBounds checks by brute force that no block is wider than the bound of its parameters.
func TestWidthBounds(t *testing.T) {
	t.Parallel()
	for _, f := range space.Families() {
		widest := 0.0 // the width as a fraction of the bound
		for _, s := range everySystem(f, 3000) {
			b := space.SystemBudget{Family: f, Params: s.BlockParams()}
			reached := float64(s.Width()) / b.WidthBound()
			if reached > 1+1e-9 {
				t.Errorf("%s has %d parameters and %d channels, the bound is %g", s, b.Params, s.Width(), b.WidthBound())
			}
			widest = max(widest, reached)
		}
		if widest < 0.999 && f != space.FamilyIGCV2 {
			t.Errorf("%s: no block comes nearer than %g to the bound", f, widest)
		}
	}
	t.Run("a product reaches it where M·S = K₂ = … = K_N", rapid.MakeCheck(func(t *rapid.T) {
		m, n := rapid.IntRange(1, 4).Draw(t, "M"), rapid.IntRange(2, 4).Draw(t, "N")
		c, sum := m, 9*m
		for range n - 1 {
			c, sum = c*9*m, sum+9*m
		}
		if bound := space.WidthBound(n, float64(c*sum), 9); math.Abs(bound/float64(c)-1) > 1e-12 {
			t.Fatalf("M = %d, N = %d: width %d, bound %g", m, n, c, bound)
		}
	}))
}

func ExampleSystemBudget() {
	b := space.SystemBudget{Family: space.FamilyRegNetX, Params: 4672, Tolerance: 0.024}
	for _, s := range b.Systems(context.Background()) {
		fmt.Printf("%s width %d, %d parameters\n", s, s.Width(), s.BlockParams())
	}
	// Output:
	// RegNetX-W46G1 width 46, 4646 parameters
	// RegNetX-W44G2 width 44, 4664 parameters
	// RegNetX-W42G3 width 42, 4662 parameters
	// RegNetX-W40G4 width 40, 4640 parameters
	// RegNetX-W35G7 width 35, 4655 parameters
}

// connected reports whether each output channel of a block depends on every input channel, by following
// the channels from partition to partition.
func connected(in int, block []space.Factor) bool {
	reach := make([]*big.Int, in) // of each channel, the inputs on which it depends, as bits
	for i := range reach {
		reach[i] = new(big.Int).SetBit(new(big.Int), i, 1)
	}
	for _, f := range block {
		next := make([]*big.Int, f.Out)
		for p := range f.Groups {
			all := new(big.Int)
			for i := range len(reach) / f.Groups {
				all.Or(all, reach[space.Channel(p, i, len(reach)/f.Groups, max(f.StepIn, 1))])
			}
			for i := range f.Out / f.Groups {
				next[space.Channel(p, i, f.Out/f.Groups, max(f.StepOut, 1))] = all
			}
		}
		reach = next
	}
	for _, r := range reach {
		if r == nil || new(big.Int).Add(r, big.NewInt(1)).BitLen() != in+1 { // 1…1 + 1 has a bit more
			return false
		}
	}
	return true
}

// TestConnected follows the channels of blocks: those of products depend on all inputs, and those of
// IGCV3 and ShuffleNet as long as G₁·G₂ ≤ R·W, or G² ≤ W/4.
func TestConnected(t *testing.T) {
	t.Parallel()
	sparse := 0
	for f, formula := range blockFormulas {
		for _, n := range smallNumbers(f) {
			s := space.System{Family: f, Numbers: n}
			if formula(n) == 0 || s.Width() > 300 {
				continue
			}
			want := true
			switch f {
			case space.FamilyIGCV3:
				want = n[2]*n[3] <= n[1]*n[0]
			case space.FamilyShuffleNet:
				want = n[1]*n[1] <= n[0]/4
			}
			if got := connected(s.Width(), s.Block()); got != want {
				t.Errorf("%s: connected is %v, want %v", s, got, want)
			}
			if !want {
				sparse++
			}
		}
	}
	for l := 1; l <= 12; l++ {
		for m := 1; m <= 12; m++ {
			for _, v := range []space.Variant{"", space.Swapped, space.Projected, space.Split, space.Rectified} {
				s := space.System{Family: space.FamilyIGC, Variant: v, Stages: [4]space.Pair{{L: l, M: m}}}
				if !connected(s.Width(), s.Block()) {
					t.Errorf("%s is not connected", s)
				}
			}
		}
	}
	if sparse < 50 {
		t.Errorf("only %d blocks were not connected", sparse)
	}
}
