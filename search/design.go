package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"igcsearch/space"
)

// Design are the settings of a study that say which networks it compares, and
// from how many seeds each is trained.
type Design struct {
	// Budget is the parameters of one block, T. It, Tolerance and All choose
	// the pairs where none are listed; Normalize clears them beside a list of
	// other pairs, because they do nothing there.
	Budget int `toml:"budget" json:"budget"`
	// Kernel is the number of spatial kernel positions, S; 9 is 3×3.
	Kernel int `toml:"kernel" json:"kernel"`
	// Tolerance is the largest |params/T − 1| of a pair, a fraction.
	Tolerance float64 `toml:"tolerance" json:"tolerance"`
	// All keeps every L within the tolerance, not only the nearest of each M.
	All bool `toml:"all" json:"all"`
	// Pairs lists the pairs, "40x2" is L = 40, M = 2. Normalize fills it from
	// Budget where the study lists none.
	Pairs []string `toml:"pairs" json:"pairs"`
	// Variant of the pairs' blocks; "" is the paper's.
	Variant space.Variant `toml:"variant" json:"variant,omitempty"`
	// Systems lists networks by name, "IGC-L24M2+Ident.", in place of pairs.
	Systems []string `toml:"systems" json:"systems,omitempty"`
	// StageParams or StageMultiplyAdds is a budget of the whole network: it chooses
	// partitions for each of its stages, the StageTop nearest within Tolerance,
	// where no systems are listed.
	StageParams       int   `toml:"stage_params" json:"stage_params,omitempty"`
	StageMultiplyAdds int64 `toml:"stage_multiply_adds" json:"stage_multiply_adds,omitempty"`
	StageTop          int   `toml:"stage_top" json:"stage_top,omitempty"`
	// Layout of the stages; "" is space.Flat, the network of Figure 3.
	Layout space.Layout `toml:"layout" json:"layout,omitempty"`
	// Depths lists the depths D of each network; none is the layout's own, in
	// the flat layout Blocks + 2.
	Depths []int `toml:"depths" json:"depths,omitempty"`
	// Blocks is the number of blocks of a network of the flat layout; Figure 3
	// has 6. Normalize clears it where it does nothing.
	Blocks int `toml:"blocks" json:"blocks"`

	// Seeds is how many trials each pair gets; their seeds are 0 … Seeds−1.
	Seeds int `toml:"seeds" json:"seeds"`
}

// normalize checks which networks are compared, and fills in those that a budget
// chooses: Pairs in the order of rising M, spelled "40x2", or Systems. Budget,
// Tolerance and All are zero unless they give those pairs, and so are the
// budgets of all stages unless they give those systems. s is the study that the
// design is of.
func (d *Design) normalize(c *checker, s Study) {
	c.check(d.Kernel == 9, "kernel %d: the trainer has 3×3 kernels only, want 9", d.Kernel)
	c.check(d.Tolerance >= 0 && d.Tolerance < 1, "tolerance %g: want a fraction in [0, 1), 0.024 is 2.4 %%",
		d.Tolerance)
	c.check(d.Seeds >= 1 && d.Seeds <= 10000, "seeds %d: want 1 to 10000", d.Seeds)
	c.check(d.Budget >= 0 && d.Budget <= 1_000_000_000,
		"budget %d: want 1 to 1000000000 parameters, or 0 beside a list of pairs", d.Budget)
	c.check(d.StageTop >= 0 && d.StageTop <= 10_000, "stage_top %d: want 1 to 10000 networks", d.StageTop)
	if err := d.Variant.Validate(); err != nil {
		c.errs = append(c.errs, err)
	}
	staged := d.StageParams != 0 || d.StageMultiplyAdds != 0
	c.check(d.Budget != 0 || len(d.Pairs) > 0 || len(d.Systems) > 0 || staged,
		"budget 0: want a number of parameters, or a list of pairs or of systems")
	c.check(len(d.Systems) == 0 || len(d.Pairs) == 0 && d.Budget == 0 && (d.Variant == "" || staged),
		"systems stand in place of budget, pairs and variant: want one or the other")
	c.check(!staged || len(d.Pairs) == 0 && d.Budget == 0,
		"stage_params and stage_multiply_adds stand in place of budget and pairs: want one or the other")
	d.normalizeLayout(c)
	pairs := d.parsePairs(c)
	systems := d.parseSystems(c)
	if len(c.errs) > 0 {
		return
	}
	switch {
	case staged:
		chosen, err := d.chooseStages(s)
		if err != nil {
			c.errs = append(c.errs, err)
			return
		}
		if len(systems) == 0 {
			systems = chosen
		}
		d.setSystems(systems, chosen)
	case len(systems) > 0:
		d.setSystems(systems, nil)
	default:
		d.setPairs(c, pairs)
	}
	if len(c.errs) == 0 {
		d.build(c)
	}
}

// normalizeLayout checks the stages and the depths, and clears Blocks where it
// does nothing.
func (d *Design) normalizeLayout(c *checker) {
	if d.Layout == space.Flat {
		d.Layout = ""
	}
	c.check(d.Layout == "" || slices.Contains(space.Layouts, d.Layout),
		`layout %q: want "flat", "stages" or "imagenet"`, d.Layout)
	if d.Layout == "" && len(d.Depths) == 0 {
		c.check(d.Blocks >= 1 && d.Blocks <= 1000, "blocks %d: want 1 to 1000", d.Blocks)
	} else {
		d.Blocks = 0
	}
	d.Depths = slices.Clone(d.Depths)
	slices.Sort(d.Depths)
	for i, depth := range d.Depths {
		c.check(i == 0 || depth != d.Depths[i-1], "depths: %d is listed twice", depth)
		c.check(depth >= 3, "depths: %d: want 3 or more", depth)
	}
}

// parsePairs returns Pairs in the order of rising M.
func (d *Design) parsePairs(c *checker) (pairs []space.Pair) {
	for _, text := range d.Pairs {
		p, err := space.ParsePair(text)
		if err != nil {
			c.check(false, "pairs: %w", err)
			continue
		}
		c.check(!slices.Contains(pairs, p), "pairs: %s is listed twice", text)
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, space.ComparePairs)
	return pairs
}

// parseSystems returns Systems in their order.
func (d *Design) parseSystems(c *checker) (systems []space.System) {
	for _, name := range d.Systems {
		system, err := space.ParseSystem(name)
		if err != nil {
			c.check(false, "systems: %w", err)
			continue
		}
		c.check(!slices.Contains(systems, system), "systems: %s is listed twice", name)
		c.check(system.Depth == 0 || len(d.Depths) == 0, "depths: %s has one in its name: want one or the other",
			system)
		systems = append(systems, system)
	}
	return systems
}

// setSystems makes the design one of systems. chosen are those of the budget of
// all stages: of others that budget says nothing.
func (d *Design) setSystems(systems, chosen []space.System) {
	if !slices.Equal(systems, chosen) {
		d.StageParams, d.StageMultiplyAdds, d.StageTop, d.Tolerance, d.Variant = 0, 0, 0, 0, ""
	}
	d.All, d.Pairs, d.Systems = false, nil, nil
	for _, system := range systems {
		d.Systems = append(d.Systems, system.String())
	}
}

// setPairs makes the design one of pairs, or if there are none of those that the
// budget chooses.
func (d *Design) setPairs(c *checker, pairs []space.Pair) {
	byBudget := d.choose()
	switch {
	case len(pairs) == 0 && len(byBudget) == 0:
		c.check(false, "budget %d: no pair lies within %g %%; raise tolerance", d.Budget, 100*d.Tolerance)
		return
	case len(pairs) == 0:
		pairs = byBudget
	case !slices.Equal(pairs, byBudget):
		d.Budget, d.Tolerance, d.All = 0, 0, false
	}
	d.Pairs = nil // a fresh slice: a study is passed by value, its slices are not
	for _, p := range pairs {
		d.Pairs = append(d.Pairs, fmt.Sprintf("%dx%d", p.L, p.M))
	}
}

// chooseStages returns the networks of the budget for all stages, for the
// pictures of s.
func (d *Design) chooseStages(s Study) ([]space.System, error) {
	in, classes := s.Shape()
	if classes == 0 || len(d.Depths) > 1 {
		return nil, errors.New("stage_params: the budget is of one depth, on a data set whose size is known " +
			"beforehand, not a folder")
	}
	b := space.StageBudget{Params: d.StageParams, MultiplyAdds: d.StageMultiplyAdds, Tolerance: d.Tolerance,
		Variant: d.Variant,
		Plan:    d.Plan(in, classes)}
	if len(d.Depths) == 1 {
		b.Plan.Depth = d.Depths[0]
	}
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("stage_params: %w", err)
	}
	all := b.Systems(context.Background())
	if len(all) == 0 {
		return nil, fmt.Errorf("stage_params: no network lies within %g %%; raise tolerance", 100*d.Tolerance)
	}
	if top := cmp.Or(d.StageTop, defaultStageTop); len(all) > top {
		all = all[:top]
	}
	return all, nil
}

// defaultStageTop is how many networks a budget for all stages chooses.
const defaultStageTop = 12

// build reports every network that cannot be built.
func (d *Design) build(c *checker) {
	key := "pairs"
	if len(d.Systems) > 0 {
		key = "systems"
	}
	for _, system := range d.SystemList() {
		if _, err := system.Network(d.Plan(space.Shape{C: 3, H: 32, W: 32}, 10)); err != nil {
			c.check(false, "%s: %w", key, err)
		}
	}
}

// choose returns the pairs of the budget in the order of a normalised study;
// none if there is no budget.
func (d Design) choose() []space.Pair {
	if d.Budget == 0 {
		return nil
	}
	b := space.Budget{Params: d.Budget, Kernel: d.Kernel, Tolerance: d.Tolerance, Variant: d.Variant}
	pairs := b.Nearest()
	if d.All {
		pairs = b.All()
	}
	slices.SortFunc(pairs, space.ComparePairs)
	return pairs
}

// PairList returns Pairs parsed. It panics if s is not normalised.
func (d Design) PairList() []space.Pair {
	pairs := make([]space.Pair, len(d.Pairs))
	for i, text := range d.Pairs {
		p, err := space.ParsePair(text)
		if err != nil {
			panic(err)
		}
		pairs[i] = p
	}
	return pairs
}

// OfPairs reports whether a normalised study compares pairs, by their M; else it
// compares networks, by name.
func (d Design) OfPairs() bool { return len(d.Systems) == 0 && len(d.Depths) <= 1 }

// SystemList returns the networks of a normalised study in the order of its
// figures and tables: those of the pairs by rising M, or Systems as they are
// listed, each with rising depth.
func (d Design) SystemList() []space.System {
	var systems []space.System
	for _, p := range d.PairList() {
		system := space.PairSystem(p)
		system.Variant = d.Variant
		systems = append(systems, system)
	}
	for _, name := range d.Systems {
		system, err := space.ParseSystem(name)
		if err != nil {
			panic(err)
		}
		systems = append(systems, system)
	}
	if len(d.Depths) == 0 {
		return systems
	}
	var deep []space.System
	for _, system := range systems {
		for _, depth := range d.Depths {
			system.Depth = depth
			deep = append(deep, system)
		}
	}
	return deep
}

// Plan says which network of a system the study trains.
func (d Design) Plan(in space.Shape, classes int) space.Plan {
	p := space.Plan{Layout: d.Layout, In: in, Classes: classes}
	if p.Layout == "" {
		p.Layout = space.Flat
		if d.Blocks > 0 {
			p.Depth = d.Blocks + 2
		}
	}
	return p
}
