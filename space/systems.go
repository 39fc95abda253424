package space

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// SystemBudget selects the networks of one family whose blocks, or which as a whole, have about the
// same number of parameters or of multiply–adds.
type SystemBudget struct {
	Family Family
	// Params is the wanted number of parameters, and MultiplyAdds that of multiply–adds for one
	// picture. One of them is at least 1, the other is 0.
	Params       int
	MultiplyAdds int64
	// Tolerance is the largest |Error| that a network may have, in [0, 1): 0.024 means 2.4 %.
	Tolerance float64
	// Whole says that the budget is that of the whole network. If it is not set, the budget is that
	// of one block of the first stage.
	Whole bool
	// Plan is the plan of the networks. For blocks only Plan.In is used: the multiply–adds of a
	// block are those for Plan.In.H × Plan.In.W positions.
	Plan Plan
	// Ident is the field of the System of each network. ResNet has it always.
	Ident bool
}

// The largest budgets, in parameters or in multiply–adds for each position of the first stage. IGCV3
// has the most networks, and takes seconds for them.
const (
	maxBlockBudget   = 200_000
	maxNetworkBudget = 1_000_000
)

// Validate returns an error if a field is out of its range. The error names the field and the
// range.
func (b SystemBudget) Validate() error {
	f, most := System{Family: b.Family}.family(), int64(maxBlockBudget)
	if b.Whole {
		most = maxNetworkBudget
	}
	switch {
	case f == nil:
		return fmt.Errorf("family %q: want one of %v", b.Family, Families())
	case b.Ident && !f.ident:
		return fmt.Errorf("family %s: its networks have no variant with identity mappings", b.Family)
	case (b.Params > 0) == (b.MultiplyAdds > 0) || b.Params < 0 || b.MultiplyAdds < 0:
		return errors.New("want a budget of parameters or of multiply–adds, and not both")
	case !(b.Tolerance >= 0 && b.Tolerance < 1):
		return fmt.Errorf("tolerance %g: want a fraction in [0, 1), 0.024 is 2.4 %%", b.Tolerance)
	case b.Plan.In.H < 0 || b.Plan.In.W < 0 || max(b.Plan.In.H, b.Plan.In.W) > maxSide:
		return fmt.Errorf("pictures of %v: want at most %d rows and columns", b.Plan.In, maxSide)
	case b.MultiplyAdds > 0 && b.positions() == 0:
		return errors.New("want pictures with rows and columns, for which multiply–adds are counted")
	case b.want() > most*b.positions():
		return fmt.Errorf("budget %d of %s: want 1 to %d", b.want(), b.Family, most*b.positions())
	}
	if !b.Whole {
		return nil
	}
	// The smallest network exists for every valid plan, so its error is that of the plan.
	s := b.system(f.cheapest(Numbers{}, 0))
	_, err := s.network(b.Plan, b.Plan.DepthOf(s))
	return err
}

// want returns the budget.
func (b SystemBudget) want() int64 { return max(int64(b.Params), b.MultiplyAdds) }

// positions returns the number of multiply–adds that a parameter of the first stage makes, or 1 for a
// budget of parameters.
func (b SystemBudget) positions() int64 {
	if b.MultiplyAdds == 0 {
		return 1
	}
	h, w := b.Plan.In.H, b.Plan.In.W
	if b.Whole && b.Plan.Layout == ImageNet {
		h, w = (h+3)/4, (w+3)/4
	}
	return int64(h) * int64(w)
}

// Cost returns the parameters and the multiply–adds of a system's network or block, whichever the
// budget limits. It returns an error if there is no such network.
func (b SystemBudget) Cost(s System) (params int, multiplyAdds int64, err error) {
	if err := s.checkNumbers(); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", s, err)
	}
	return b.cost(s)
}

// cost is Cost of a system whose numbers are those of its family.
func (b SystemBudget) cost(s System) (params int, multiplyAdds int64, err error) {
	if b.Whole {
		n, err := s.Network(b.Plan)
		return n.Params(), n.MultiplyAdds(), err
	}
	params = s.BlockParams()
	return params, int64(params) * int64(b.Plan.In.H) * int64(b.Plan.In.W), nil
}

// Error returns how far a cost is from the budget, cost/budget − 1: 0.024 means 2.4 % above it.
func (b SystemBudget) Error(params int, multiplyAdds int64) float64 {
	return deviation(b.Params, b.MultiplyAdds, params, multiplyAdds)
}

// String describes the budget, for example "4672 parameters of a block".
func (b SystemBudget) String() string {
	of := " of a block"
	if b.Whole {
		of = " of a network"
	}
	return amount(b.Params, b.MultiplyAdds) + of
}

// WidthBound returns a bound of the width of blocks that do not exceed the budget. It is +Inf for a
// budget of the whole network.
func (b SystemBudget) WidthBound() float64 {
	f := System{Family: b.Family}.family()
	if b.Whole || f == nil {
		return math.Inf(1)
	}
	return f.bound(float64(b.want()) / float64(b.positions()))
}

// Systems returns every network of the family within the tolerance, in whose blocks each output
// channel depends on all input channels: all numbers that a name can have, but of IGCV2 only
// K₂ ≤ … ≤ K_N, and of IGC the same pair in each stage. The widest come first; of equal width the
// nearest to the budget; and equally near ones in the order of their numbers. The result is nil if
// Validate fails or ctx ends.
func (b SystemBudget) Systems(ctx context.Context) []System {
	if b.Validate() != nil {
		return nil
	}
	e := enumeration{SystemBudget: b, ctx: ctx, family: System{Family: b.Family}.family()}
	if len(e.family.numbers) == 0 {
		e.try(Numbers{})
	} else {
		e.choose(Numbers{}, 0)
	}
	if ctx.Err() != nil {
		return nil
	}
	slices.SortFunc(e.found, func(x, y found) int {
		return cmp.Or(cmp.Compare(y.width, x.width), cmp.Compare(math.Abs(x.error), math.Abs(y.error)),
			slices.Compare(x.numbers[:], y.numbers[:]))
	})
	systems := make([]System, len(e.found))
	for i, f := range e.found {
		systems[i] = b.system(f.numbers)
	}
	return systems
}

// system returns the system of some numbers of the family.
func (b SystemBudget) system(n Numbers) System {
	s := System{Family: b.Family}.family().system(n)
	s.Ident = s.Ident || b.Ident
	return s
}

// cheapest completes numbers, of which the first `at` are given, to those of the cheapest system.
func (f *family) cheapest(n Numbers, at int) Numbers {
	for ; at < len(f.numbers); at++ {
		if n[at] = f.numbers[at].least; f.numbers[at].falls {
			n[at] = f.numbers[at].of(n)
		}
	}
	return n
}

// found is a system within the tolerance.
type found struct {
	numbers Numbers
	width   int
	error   float64
}

// enumeration collects the systems of a budget.
type enumeration struct {
	SystemBudget
	ctx    context.Context
	family *family
	found  []found
}

// try notes a system if it is within the tolerance, and reports whether it is not above it. A system
// that is too large to be counted is above.
func (e *enumeration) try(n Numbers) (affordable bool) {
	off, affordable := e.off(n)
	if affordable && off >= -e.Tolerance {
		e.found = append(e.found, found{n, e.system(n).Width(), off})
	}
	return affordable
}

// off returns the error of a system, and whether the system is not above the tolerance.
func (e *enumeration) off(n Numbers) (off float64, affordable bool) {
	params, multiplyAdds, err := e.cost(e.system(n))
	off = e.Error(params, multiplyAdds)
	return off, err == nil && off <= e.Tolerance
}

// choose tries every value of number `at`, and for each of them all numbers behind it. It leaves out
// values with which even the cheapest system is too dear.
func (e *enumeration) choose(n Numbers, at int) {
	last := len(e.family.numbers) - 1
	number := e.family.numbers[min(at, last)]
	// affords goes on with a value, and reports whether there are affordable systems with it.
	affords := func(v int) bool {
		if n[at] = v; at < last {
			if _, ok := e.off(e.family.cheapest(n, at+1)); !ok {
				return false
			}
		} else if e.family.dense != nil && !e.family.dense(n) {
			return true
		} else if !e.try(n) {
			return false
		}
		if at < last || number.many && at+1 < len(n) {
			e.choose(n, at+1)
		}
		return e.ctx.Err() == nil
	}
	if number.of != nil {
		for _, v := range divisors(number.of(n)) {
			affords(v)
		}
		return
	}
	v := number.least
	if at > last {
		v = n[at-1] // the repeated numbers are in rising order
	}
	for ; affords(v); v += max(number.every, 1) {
	}
}

// divisors lists the divisors of n ≥ 1 in rising order.
func divisors(n int) (list []int) {
	var large []int
	for d := 1; d*d <= n; d++ {
		if n%d == 0 {
			list = append(list, d)
			if d*d < n {
				large = append(large, n/d)
			}
		}
	}
	slices.Reverse(large)
	return append(list, large...)
}
