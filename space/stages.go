package space

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// StageBudget selects networks that meet a budget of the whole network, and may have another pair
// in each of their three stages. As in the paper, each stage has twice the channels of the one
// before. The pair of a stage is free, as long as its L divides the channels of the stage and those
// that the stage reads.
type StageBudget struct {
	// Params is the wanted number of parameters, and MultiplyAdds that of multiply–adds for one
	// picture. One of them is at least 1, the other is 0.
	Params       int
	MultiplyAdds int64
	// Tolerance is the largest |Error| that a network may have, in [0, 1): 0.024 means 2.4 %.
	Tolerance float64
	// Plan has the layout Stages, and a Depth above 0.
	Plan Plan
	// Ident and Variant are the fields of the System of each network.
	Ident   bool
	Variant Variant
}

const (
	maxStageBudget = 50_000_000 // parameters of a network; about 10⁶ networks must be counted
	maxStageWidth  = 1_000      // channels of the first stage; about 10⁷ networks must be counted
	stages         = 3          // the stages of the layout Stages
)

// Validate returns an error if a field is out of its range. The error names the field and the
// range.
func (b StageBudget) Validate() error {
	switch {
	case (b.Params > 0) == (b.MultiplyAdds > 0) || b.Params < 0 || b.MultiplyAdds < 0:
		return errors.New("want a budget of parameters or of multiply–adds, and not both")
	case b.Params > maxStageBudget:
		return fmt.Errorf("budget %d: want 1 to %d parameters of a network", b.Params, maxStageBudget)
	case !(b.Tolerance >= 0 && b.Tolerance < 1):
		return fmt.Errorf("tolerance %g: want a fraction in [0, 1), 0.024 is 2.4 %%", b.Tolerance)
	case b.Plan.Layout != Stages:
		return fmt.Errorf("layout %q: want stages, the only one that searches a pair for each stage", b.Plan.Layout)
	}
	if err := b.Variant.Validate(); err != nil {
		return err
	}
	// This network exists for every valid plan, so its error is that of the plan.
	m := b.Variant.reduction()
	s := System{Family: FamilyIGC, Stages: [4]Pair{{1, m}}, Ident: b.Ident}
	_, err := s.network(b.Plan, b.Plan.DepthOf(s))
	return err
}

// system returns the network with the given pairs in its stages.
func (b StageBudget) system(p ...Pair) System {
	s := System{Family: FamilyIGC, Ident: b.Ident, Variant: b.Variant}
	copy(s.Stages[:], p)
	return s
}

// cost returns the number of parameters or of multiply–adds of some layers, whichever the budget
// limits.
func (b StageBudget) cost(layers []Layer) int64 {
	n := Network{Layers: layers}
	if b.Params > 0 {
		return int64(n.Params())
	}
	return n.MultiplyAdds()
}

// Cost returns the parameters and the multiply–adds of a system's network. It returns an error if
// there is no such network.
func (b StageBudget) Cost(s System) (params int, multiplyAdds int64, err error) {
	n, err := s.Network(b.Plan)
	return n.Params(), n.MultiplyAdds(), err
}

// Error returns how far a cost is from the budget, cost/budget − 1: 0.024 means 2.4 % above it.
func (b StageBudget) Error(params int, multiplyAdds int64) float64 {
	return deviation(b.Params, b.MultiplyAdds, params, multiplyAdds)
}

// String describes the budget, for example "151834 parameters".
func (b StageBudget) String() string { return amount(b.Params, b.MultiplyAdds) + " of a network" }

// Systems returns the networks within the tolerance, the nearest to the budget first. Equally near
// networks are in the order of their pairs (ComparePairs), stage by stage. The first stage has at
// most 1,000 channels. The result is nil if Validate fails or ctx ends.
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
	// The cost of a stage depends only on its own pair and on that of the stage before.
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
		// The smallest cost grows with the width, but not at each step: the cheapest pairs of a
		// width need not divide the next width. Hence the factor of 4.
		most := want * (1 + b.Tolerance)
		if ends > int64(most) || float64(smallest) > 4*most && smallest < math.MaxInt64 {
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

// partitions lists the pairs that are possible for a stage of width channels that reads in
// channels.
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

// ends returns the cost of the first convolution, which gives g channels, and of the linear layer.
func (b StageBudget) ends(g int) int64 {
	c := builder{in: b.Plan.In}
	c.add(c.conv("conv0", Conv, 1, g, 3, 1))
	n := int64(4*g) * int64(b.Plan.Classes)
	if b.Params > 0 {
		n += int64(b.Plan.Classes)
	}
	return b.cost(c.layers) + n
}

// stage returns the cost of the blocks of stage i ≥ 0, whose pair is next. The stage before has the
// pair prev. costs remembers the results of one width.
func (b StageBudget) stage(costs map[[2]Pair]int64, i, depth int, prev, next Pair) int64 {
	key := [2]Pair{prev, next}
	if i == 0 {
		key[0] = Pair{} // prev equals next in the first stage
	}
	if n, ok := costs[key]; ok {
		return n
	}
	c := builder{in: Shape{C: prev.Width(), H: b.Plan.In.H, W: b.Plan.In.W}, layout: Stages}
	for range i - 1 { // each stage before this one, but the first, halves the size
		c.in.H, c.in.W = (c.in.H+1)/2, (c.in.W+1)/2
	}
	blocks := (depth - 2) / stages
	b.system().addStage(&c, i, blocks, prev, next)
	costs[key] = b.cost(c.layers)
	return costs[key]
}
