package space

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// StageBudget asks for the partitions of each stage of a network, for a budget of
// the whole network. As in the paper, each stage has twice the channels of the one
// before; how they are parted is free: L of a stage divides its channels and those
// that it reads.
type StageBudget struct {
	// Params or MultiplyAdds of the network, from 1; the other is 0.
	Params       int
	MultiplyAdds int64
	// Tolerance is the largest deviation, as Budget's.
	Tolerance float64
	// Plan is of the Stages layout, with a depth.
	Plan Plan
	// Ident and Variant are those of the networks.
	Ident   bool
	Variant Variant
}

const (
	maxStageBudget = 50_000_000 // parameters: some 10⁶ networks to count
	maxStageWidth  = 1_000      // of the first stage, whatever the budget is: some 10⁷
	stages         = 3
)

// Validate says which field is out of its range.
func (b StageBudget) Validate() error {
	switch {
	case (b.Params > 0) == (b.MultiplyAdds > 0) || b.Params < 0 || b.MultiplyAdds < 0:
		return fmt.Errorf("a budget of parameters or of multiply–adds: want one of them")
	case b.Params > maxStageBudget:
		return fmt.Errorf("budget %d: want 1 to %d parameters of a network", b.Params, maxStageBudget)
	case !(b.Tolerance >= 0 && b.Tolerance < 1):
		return fmt.Errorf("tolerance %g: want a fraction in [0, 1), 0.024 is 2.4 %%", b.Tolerance)
	case b.Plan.Layout != Stages:
		return fmt.Errorf("layout %q: partitions for each stage are of the stages layout", b.Plan.Layout)
	}
	if err := b.Variant.Validate(); err != nil {
		return err
	}
	// A network that always exists says whether the plan is one.
	m := b.Variant.reduction()
	_, err := System{Family: FamilyIGC, Stages: [4]Pair{{1, m}}, Ident: b.Ident}.Network(b.Plan)
	if err != nil {
		_, text, _ := strings.Cut(err.Error(), ": ")
		return errors.New(text)
	}
	return nil
}

func (b StageBudget) system(p ...Pair) System {
	s := System{Family: FamilyIGC, Ident: b.Ident, Variant: b.Variant}
	copy(s.Stages[:], p)
	return s
}

// of is what the budget counts of some layers.
func (b StageBudget) of(layers []Layer) int64 {
	n := Network{Layers: layers}
	if b.Params > 0 {
		return int64(n.Params())
	}
	return n.MultiplyAdds()
}

// Error is how far a network is from the budget, as Budget's.
func (b StageBudget) Error(n Network) float64 {
	return float64(b.of(n.Layers))/float64(max(int64(b.Params), b.MultiplyAdds)) - 1
}

// Systems returns the networks within the tolerance, nearest first; of equally
// near ones in the order of their partitions. The first stage has at most 1,000
// channels. It returns nil if Validate fails or ctx is done.
func (b StageBudget) Systems(ctx context.Context) []System {
	if b.Validate() != nil {
		return nil
	}
	want := float64(max(int64(b.Params), b.MultiplyAdds))
	type found struct {
		System
		error float64
	}
	var all []found
	depth := Plan{Layout: Stages, Depth: b.Plan.Depth}.DepthOf(System{Variant: b.Variant})
	// What a stage costs depends on its partitions and those before it only.
	costs := map[[2]Pair]int64{}
	for g := 1; g <= maxStageWidth; g++ {
		if ctx.Err() != nil {
			return nil
		}
		ends := b.ends(g)
		smallest := int64(math.MaxInt64)
		for _, first := range b.partitions(g, g) {
			one := b.stage(costs, 0, depth, first, first)
			for _, second := range b.partitions(2*g, g) {
				two := b.stage(costs, 1, depth, first, second)
				for _, third := range b.partitions(4*g, 2*g) {
					sum := ends + one + two + b.stage(costs, 2, depth, second, third)
					smallest = min(smallest, sum)
					if e := float64(sum)/want - 1; math.Abs(e) <= b.Tolerance {
						all = append(all, found{b.system(first, second, third), e})
					}
				}
			}
		}
		// Costs grow with the width, but for a wobble of the divisors: the
		// partitions that are best for a width may not exist for the next.
		if ends > int64(want*(1+b.Tolerance)) || float64(smallest) > 4*want*(1+b.Tolerance) && smallest < math.MaxInt64 {
			break
		}
		clear(costs)
	}
	slices.SortStableFunc(all, func(x, y found) int {
		c := cmp.Compare(math.Abs(x.error), math.Abs(y.error))
		for i := range stages {
			c = cmp.Or(c, ComparePairs(x.Stages[i], y.Stages[i]))
		}
		return c
	})
	systems := make([]System, len(all))
	for i, f := range all {
		systems[i] = f.System
	}
	return systems
}

// partitions lists those of a stage of width channels that reads in channels.
func (b StageBudget) partitions(width, in int) []Pair {
	var list []Pair
	for l := 1; l <= in; l++ {
		p := Pair{L: l, M: width / l}
		if width%l == 0 && in%l == 0 && b.Variant.Params(p, 9) > 0 {
			list = append(list, p)
		}
	}
	return list
}

// ends is what the first convolution and the linear layer cost.
func (b StageBudget) ends(g int) int64 {
	c := builder{in: b.Plan.In}
	c.add(c.conv("conv0", Conv, 1, g, 3, 1))
	n := int64(4*g) * int64(b.Plan.Classes)
	if b.Params > 0 {
		n += int64(b.Plan.Classes)
	}
	return b.of(c.layers) + n
}

// stage is what the blocks of stage i cost.
func (b StageBudget) stage(costs map[[2]Pair]int64, i, depth int, prev, next Pair) int64 {
	key := [2]Pair{prev, next}
	if i == 0 {
		key[0] = Pair{} // the first stage reads what it is itself
	}
	if n, ok := costs[key]; ok {
		return n
	}
	c := builder{in: Shape{C: prev.Width(), H: b.Plan.In.H, W: b.Plan.In.W}, layout: Stages}
	for range i - 1 { // the sizes that the stages before leave
		c.in.H, c.in.W = (c.in.H+1)/2, (c.in.W+1)/2
	}
	blocks := (depth - 2) / stages
	b.system().addStage(&c, i, blocks, prev, next)
	costs[key] = b.of(c.layers)
	return costs[key]
}
