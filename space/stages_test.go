package space_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"igcsearch/space"

	"pgregory.net/rapid"
)

func TestStageBudget(t *testing.T) {
	t.Parallel()
	t.Run("the paper's IGC-L24M2 is within its own budget", func(t *testing.T) {
		// Table 3: 151,834 parameters and 28,755,840 multiply–adds at D = 20.
		stages := [4]space.Pair{{L: 24, M: 2}, {L: 24, M: 4}, {L: 24, M: 8}}
		want := space.System{Family: space.FamilyIGC, Stages: stages}
		for _, b := range []space.StageBudget{
			{Params: 151_834, Plan: inStages(20)}, {MultiplyAdds: 28_755_840, Plan: inStages(20)},
		} {
			if got := b.Systems(context.Background()); !slices.Contains(got, want) {
				t.Errorf("%+v: %v", b, got)
			}
		}
	})
	t.Run("every network is within the tolerance, nearest first", rapid.MakeCheck(func(t *rapid.T) {
		b := space.StageBudget{Tolerance: 0.05, Ident: rapid.Bool().Draw(t, "ident"),
			Variant: rapid.SampledFrom([]space.Variant{"", space.Swapped, space.Bottleneck(2)}).Draw(t, "variant"),
			Plan:    inStages(8)}
		b.Plan.In = space.Shape{C: 3, H: rapid.IntRange(4, 33).Draw(t, "H"), W: 16}
		if rapid.Bool().Draw(t, "by parameters") {
			b.Params = rapid.IntRange(500, 20_000).Draw(t, "params")
		} else {
			b.MultiplyAdds = int64(rapid.IntRange(50_000, 1_000_000).Draw(t, "multiply–adds"))
		}
		last := 0.0
		for _, s := range b.Systems(context.Background()) {
			n, err := s.Network(b.Plan)
			if err != nil {
				t.Fatal(err)
			}
			e := math.Abs(b.Error(n.Params(), n.MultiplyAdds()))
			if e > b.Tolerance || e < last-1e-12 {
				t.Fatalf("%v is off by %g after %g", s, e, last)
			}
			last = e
		}
	}))
	t.Run("Systems finds what brute force finds", func(t *testing.T) {
		b := space.StageBudget{Params: 9000, Tolerance: 0.03, Plan: inStages(8)}
		got := b.Systems(context.Background())
		want := bruteForce(t, b)
		for _, s := range want {
			if !slices.Contains(got, s) {
				t.Errorf("%v is missing", s)
			}
		}
		if len(got) != len(want) || len(got) < 10 {
			t.Errorf("%d networks, brute force finds %d", len(got), len(want))
		}
	})
	t.Run("a bottleneck that divides no usual width has networks too", func(t *testing.T) {
		b := space.StageBudget{Params: 20_000, Tolerance: 0.1, Variant: space.Bottleneck(5), Plan: inStages(8)}
		if err := b.Validate(); err != nil || len(b.Systems(context.Background())) == 0 {
			t.Errorf("%v, %d networks", err, len(b.Systems(context.Background())))
		}
	})
	t.Run("an invalid budget gives no networks", func(t *testing.T) {
		plan := inStages(8)
		for _, b := range []space.StageBudget{
			{Plan: plan},
			{Params: 1, MultiplyAdds: 1, Plan: plan},
			{Params: -1, Plan: plan},
			{Params: 100, Tolerance: 1, Plan: plan},
			{Params: 100, Plan: space.Plan{Layout: space.Flat, In: cifar, Classes: 10}},
			{Params: 100, Plan: inStages(9)},
			{Params: 100, Plan: plan, Variant: "B1"},
		} {
			if b.Validate() == nil || b.Systems(context.Background()) != nil {
				t.Errorf("%+v: %v, %d networks", b, b.Validate(), len(b.Systems(context.Background())))
			}
		}
	})
}

// bruteForce tries all pairs of all widths up to 40 channels, and returns the networks within the
// tolerance.
func bruteForce(t *testing.T, b space.StageBudget) (found []space.System) {
	for g := 1; g <= 40; g++ {
		for l1 := 1; l1 <= g; l1++ {
			for l2 := 1; l2 <= g; l2++ {
				for l3 := 1; l3 <= 2*g; l3++ {
					if g%l1+g%l2+2*g%l3 > 0 {
						continue
					}
					stages := [4]space.Pair{{L: l1, M: g / l1}, {L: l2, M: 2 * g / l2}, {L: l3, M: 4 * g / l3}}
					s := space.System{Family: space.FamilyIGC, Stages: stages}
					n, err := s.Network(b.Plan)
					if err != nil {
						t.Fatal(err)
					}
					if math.Abs(b.Error(n.Params(), n.MultiplyAdds())) <= b.Tolerance {
						found = append(found, s)
					}
				}
			}
		}
	}
	return found
}
