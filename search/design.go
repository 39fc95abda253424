package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"igcsearch/space"
)

// Design holds the settings that say which networks a study compares, and from how many seeds it
// trains each of them. Package space explains the symbols L, M, S, T and D.
type Design struct {
	// Budget is the wanted number of parameters of one block, T. Budget, Tolerance and All choose
	// the pairs if Pairs is empty. Normalize clears the three if Pairs lists other pairs.
	Budget int `toml:"budget" json:"budget"`
	// Kernel is the number of positions of the primary kernel, S: 9 for 3×3, or 1 for 1×1, which is
	// the Variant space.Pointwise. Normalize makes the two agree.
	Kernel int `toml:"kernel" json:"kernel"`
	// Tolerance is the largest |params/T − 1| of a pair, in [0, 1): 0.024 means 2.4 %. For a budget
	// of the whole network it is the largest such deviation of a network.
	Tolerance Tolerance `toml:"tolerance" json:"tolerance"`
	// All chooses every pair within the tolerance, not only the nearest pair of each M.
	All bool `toml:"all" json:"all"`
	// Pairs lists the pairs: "40x2" is L = 40, M = 2. Normalize fills it from Budget if it is
	// empty, and orders it by rising M.
	Pairs []string `toml:"pairs" json:"pairs"`
	// Variant is the variant of the pairs' blocks. "" is the plain block.
	Variant space.Variant `toml:"variant" json:"variant,omitempty"`
	// Systems lists networks by name, for example "IGC-L24M2+Ident.", in place of pairs.
	Systems []string `toml:"systems" json:"systems,omitempty"`
	// StageParams, or StageMultiplyAdds, is a budget of the whole network. It chooses networks that
	// may have another pair in each stage, if Systems is empty: of those within Tolerance, the
	// StageTop nearest to the budget. A StageTop of 0 means 12. Normalize clears the budget if
	// Systems lists other networks.
	StageParams       int   `toml:"stage_params" json:"stage_params,omitempty"`
	StageMultiplyAdds int64 `toml:"stage_multiply_adds" json:"stage_multiply_adds,omitempty"`
	StageTop          int   `toml:"stage_top" json:"stage_top,omitempty"`
	// Families chooses networks of these families, if Systems is empty, by Budget or by StageParams or
	// StageMultiplyAdds: of each family the PerFamily widest within Tolerance. A PerFamily of 0 means
	// 12. Normalize clears the budget and both if Systems lists other networks.
	Families  []string `toml:"families" json:"families,omitempty"`
	PerFamily int      `toml:"per_family" json:"per_family,omitempty"`
	// Layout is the layout of the stages. "" is space.Flat, that of Figure 3.
	Layout space.Layout `toml:"layout" json:"layout,omitempty"`
	// Depths lists the depths D; the study trains each network with each of them. If it is empty,
	// the layout gives the depth; in the layout space.Flat it is Blocks + 2.
	Depths []int `toml:"depths" json:"depths,omitempty"`
	// Blocks is the number of blocks of a network in the layout space.Flat; Figure 3 has 6.
	// Normalize clears it if the layout is another, or if Depths is set.
	Blocks int `toml:"blocks" json:"blocks"`

	// Seeds are the seeds of the trials of each network.
	Seeds Seeds `toml:"seeds" json:"seeds"`
}

// normalize checks which networks are compared, and fills in the networks that a budget chooses. It
// clears each budget that does not choose exactly the listed networks. s is the study of the
// design.
func (d *Design) normalize(c *checker, s Study) {
	d.normalizeKernel(c)
	c.check(d.Tolerance >= 0 && d.Tolerance < 1, "tolerance %g: want a fraction in [0, 1), 0.024 or \"2.4%%\" is 2.4 %%",
		d.Tolerance)
	d.Seeds.normalize(c)
	c.check(d.Budget >= 0 && d.Budget <= 1_000_000_000,
		"budget %d: want 1 to 1000000000 parameters, or 0 beside a list of pairs", d.Budget)
	c.check(d.StageTop >= 0 && d.StageTop <= 10_000, "stage_top %d: want 1 to 10000 networks", d.StageTop)
	if err := d.Variant.Validate(); err != nil {
		c.errs = append(c.errs, err)
	}
	staged, families := d.StageParams != 0 || d.StageMultiplyAdds != 0, len(d.Families) > 0
	c.check(d.Budget != 0 || len(d.Pairs) > 0 || len(d.Systems) > 0 || staged,
		"budget 0: want a number of parameters, or a list of pairs or of systems")
	c.check(len(d.Systems) == 0 || len(d.Pairs) == 0 && (d.Budget == 0 || families) && (d.Variant == "" || staged),
		"systems: they replace budget, pairs and variant: want either systems or those")
	c.check(!staged || len(d.Pairs) == 0 && d.Budget == 0,
		"stage_params: the budget of a whole network replaces budget and pairs: want either it or those")
	c.check(!families || len(d.Pairs) == 0 && d.Variant == "" && (d.Budget != 0 || staged),
		"families: they choose networks without a variant by budget, stage_params or stage_multiply_adds, in place of pairs")
	c.check(d.PerFamily >= 0 && d.PerFamily <= 10_000, "per_family %d: want 1 to 10000 networks", d.PerFamily)
	c.check(families || d.PerFamily == 0, "per_family: it has no effect without families")
	d.normalizeLayout(c)
	pairs := d.parsePairs(c)
	systems := d.parseSystems(c)
	if len(c.errs) > 0 {
		return
	}
	switch {
	case families, staged:
		choose := d.chooseStages
		if families {
			choose = d.chooseFamilies
		}
		chosen, err := choose(s)
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

// usualKernel is the Kernel of studies of all networks but pairs with the variant space.Pointwise.
const usualKernel = 9

// normalizeKernel checks the kernel, and makes the variant agree with it.
func (d *Design) normalizeKernel(c *checker) {
	c.check(d.Kernel == usualKernel || d.Kernel == 1, "kernel %d: want 9 for 3×3 kernels, or 1 for 1×1", d.Kernel)
	if d.Kernel == 1 && d.Variant == "" && len(d.Systems) == 0 {
		d.Variant = space.Pointwise
	}
	c.check(d.Kernel != 1 || len(d.Systems) == 0,
		"kernel 1: it has no effect beside systems: give these names with 1×1 kernels, like IGC-L24M2+1x1")
	c.check(d.Kernel != 1 || d.Variant == space.Pointwise || len(d.Systems) > 0,
		"kernel 1: the variant %s has kernels of its own: want either", d.Variant)
	if d.Variant == space.Pointwise && len(d.Systems) == 0 {
		d.Kernel = 1
	}
}

// normalizeLayout checks the layout and the depths, and clears Blocks where it has no effect.
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

// parsePairs parses Pairs and returns them in the order of rising M.
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

// parseSystems parses Systems and keeps their order.
func (d *Design) parseSystems(c *checker) (systems []space.System) {
	for _, name := range d.Systems {
		system, err := space.ParseSystem(name)
		if err != nil {
			c.check(false, "systems: %w", err)
			continue
		}
		c.check(!slices.Contains(systems, system), "systems: %s is listed twice", name)
		c.check(system.Depth == 0 || len(d.Depths) == 0,
			"depths: %s has a depth in its name: want either depths or names with a depth", system)
		systems = append(systems, system)
	}
	return systems
}

// setSystems makes the design compare systems. chosen are the networks that a budget of the whole
// network, or of families, chooses. If systems are others, setSystems clears that budget.
func (d *Design) setSystems(systems, chosen []space.System) {
	if !slices.Equal(systems, chosen) {
		d.StageParams, d.StageMultiplyAdds, d.StageTop, d.Tolerance, d.Variant = 0, 0, 0, 0, ""
		d.Budget, d.Families, d.PerFamily = 0, nil, 0
	}
	d.All, d.Pairs, d.Systems, d.Kernel = false, nil, nil, usualKernel
	for _, system := range systems {
		d.Systems = append(d.Systems, system.String())
	}
}

// setPairs makes the design compare pairs, or the pairs that the budget chooses if there are none.
func (d *Design) setPairs(c *checker, pairs []space.Pair) {
	byBudget := d.choose()
	switch {
	case len(pairs) == 0 && len(byBudget) == 0:
		c.check(false, "budget %d: no pair lies within %g %%; raise tolerance", d.Budget, 100*float64(d.Tolerance))
		return
	case len(pairs) == 0:
		pairs = byBudget
	case !slices.Equal(pairs, byBudget):
		d.Budget, d.Tolerance, d.All = 0, 0, false
	}
	d.Pairs = nil // copies of the study share the old slice, which must not change
	for _, p := range pairs {
		d.Pairs = append(d.Pairs, fmt.Sprintf("%dx%d", p.L, p.M))
	}
}

// chooseStages returns the networks that the budget of the whole network chooses for the pictures
// of the study s.
func (d *Design) chooseStages(s Study) ([]space.System, error) {
	plan, err := d.budgetPlan(s)
	if err != nil {
		return nil, err
	}
	b := space.StageBudget{Params: d.StageParams, MultiplyAdds: d.StageMultiplyAdds,
		Tolerance: float64(d.Tolerance), Variant: d.Variant, Plan: plan}
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("stage_params: %w", err)
	}
	all := b.Systems(context.Background())
	if len(all) == 0 {
		return nil, fmt.Errorf("stage_params: no network lies within %g %%; raise tolerance", 100*float64(d.Tolerance))
	}
	if top := cmp.Or(d.StageTop, defaultStageTop); len(all) > top {
		all = all[:top]
	}
	return all, nil
}

// budgetPlan returns the plan of the networks that a budget of the whole network chooses.
func (d *Design) budgetPlan(s Study) (space.Plan, error) {
	in, classes := s.Shape()
	if classes == 0 || len(d.Depths) > 1 {
		return space.Plan{}, errors.New("stage_params: want at most one depth, and a data set other than folder, " +
			"because the budget needs the number of classes")
	}
	plan := d.Plan(in, classes)
	if len(d.Depths) == 1 {
		plan.Depth = d.Depths[0]
	}
	return plan, nil
}

// chooseFamilies returns the networks of Families that the budget chooses for the pictures of the
// study s, in the order of Families.
func (d *Design) chooseFamilies(s Study) (chosen []space.System, err error) {
	all, _, err := d.ofFamilies(s)
	for _, networks := range all {
		chosen = append(chosen, networks[:min(len(networks), cmp.Or(d.PerFamily, defaultPerFamily))]...)
	}
	return chosen, err
}

// ofFamilies returns the networks of each of Families within the tolerance of its budget, the widest
// first. A network with two names, such as IGC-L40M2 and IGCV2-M2K40, is of the first family only.
func (d *Design) ofFamilies(s Study) (all [][]space.System, budgets []space.SystemBudget, err error) {
	if budgets, err = d.familyBudgets(s); err != nil {
		return nil, nil, err
	}
	known := map[string]bool{}
	for _, b := range budgets {
		list := b.Systems(context.Background())
		if len(list) == 0 {
			return nil, nil, fmt.Errorf("families: no network of %s lies within %g %% of %s; raise tolerance", b.Family,
				100*b.Tolerance, b)
		}
		all = append(all, slices.DeleteFunc(list, func(system space.System) bool {
			network := fmt.Sprint(system.Block(), system.Ident)
			twice := known[network]
			known[network] = true
			return twice
		}))
	}
	return all, budgets, nil
}

// familyBudgets returns the budget of each family.
func (d *Design) familyBudgets(s Study) (list []space.SystemBudget, err error) {
	b := space.SystemBudget{Params: d.Budget, Tolerance: float64(d.Tolerance), Whole: d.Budget == 0}
	if b.Whole {
		b.Params, b.MultiplyAdds = d.StageParams, d.StageMultiplyAdds
		if b.Plan, err = d.budgetPlan(s); err != nil {
			return nil, err
		}
	}
	for i, name := range d.Families {
		b.Family = space.Family(name)
		if slices.Contains(d.Families[:i], name) {
			return nil, fmt.Errorf("families: %q is listed twice", name)
		}
		if err := b.Validate(); err != nil {
			return nil, fmt.Errorf("families: %w", err)
		}
		list = append(list, b)
	}
	return list, nil
}

// LeftOut says how many networks within the tolerance a normalised study leaves out, because
// PerFamily is smaller: "35 of the 47 networks of IGCV2". It is "" if there are none. Networks that
// have a name of an earlier family are not counted.
func (s Study) LeftOut() string {
	all, budgets, err := s.ofFamilies(s)
	if err != nil {
		return ""
	}
	var text []string
	for i, networks := range all {
		if out := len(networks) - cmp.Or(s.PerFamily, defaultPerFamily); out > 0 {
			text = append(text, fmt.Sprintf("%d of the %d networks of %s", out, len(networks), budgets[i].Family))
		}
	}
	return strings.Join(text, ", ")
}

// defaultPerFamily is the number of networks that PerFamily = 0 stands for.
const defaultPerFamily = 12

// defaultStageTop is the number of networks that StageTop = 0 stands for.
const defaultStageTop = 12

// build adds an error for every network that cannot be built.
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

// choose returns the pairs that Budget chooses, in the order of ComparePairs. There are none if
// Budget is 0.
func (d Design) choose() []space.Pair {
	if d.Budget == 0 {
		return nil
	}
	b := space.Budget{Params: d.Budget, Kernel: d.Kernel, Tolerance: float64(d.Tolerance), Variant: d.Variant}
	pairs := b.Nearest()
	if d.All {
		pairs = b.All()
	}
	slices.SortFunc(pairs, space.ComparePairs)
	return pairs
}

// PairList parses Pairs. It panics if the study is not normalised.
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

// OfPairs reports whether a normalised study compares pairs, which figures and tables show by their
// M. If not, it compares networks, which they show by name.
func (d Design) OfPairs() bool { return len(d.Systems) == 0 && len(d.Depths) <= 1 }

// SystemList returns the networks of a normalised study in the order of its figures and tables:
// pairs by rising M or Systems as they are listed, and for each of them the depths in rising order.
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

// Plan returns the plan by which the study builds its networks, for pictures of the shape in and a
// number of classes.
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
