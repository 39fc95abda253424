package graph

import (
	"fmt"
	"reflect"

	G "gorgonia.org/gorgonia"
)

// executor runs a Gorgonia expression graph on the caller's goroutine; the
// package comment says why it stands in for the TapeMachine.
type executor struct {
	steps  []step
	nodes  G.Nodes   // in dependency order
	values []G.Value // of every node
}

type step struct {
	node *G.Node
	op   doer      // the node's, or what stands in for it
	in   []int     // indices into values
	args []G.Value // reused
	out  int
}

type doer interface {
	Do(...G.Value) (G.Value, error)
}

// placed is an op whose value lies in memory that the executor gives: the
// gradient of an activation.
type placed interface {
	// memory returns the floats of the value and the index of the input whose
	// place it may take, −1 for none.
	memory() (floats, over int)
	place([]float32)
}

// newExecutor plans the nodes that the roots need, in dependency order, and the
// memory of their values.
func newExecutor(r *runtime, g *G.ExprGraph, roots ...*G.Node) (*executor, error) {
	g = g.ExactSubgraphRoots(roots...)
	sorted, err := G.Sort(g)
	if err != nil {
		return nil, fmt.Errorf("sort the graph: %w", err)
	}
	e := &executor{values: make([]G.Value, len(sorted))}
	index := make(map[int64]int, len(sorted))
	for i := len(sorted) - 1; i >= 0; i-- { // Sort puts the roots first
		n := sorted[i]
		out := len(index)
		index[n.ID()] = out
		e.nodes = append(e.nodes, n)
		if n.Op() == nil || n.Op().Arity() == 0 { // an input, or a constant
			e.values[out] = n.Value()
			continue
		}
		s := step{node: n, op: n.Op(), out: out}
		if isAddition(n) {
			s.op = &sum{run: r, n: n.Shape().TotalSize()}
		}
		for children := g.From(n.ID()); children.Next(); {
			at, ok := index[children.Node().ID()]
			if !ok {
				return nil, fmt.Errorf("graph: %v comes before its input %v", n, children.Node())
			}
			s.in = append(s.in, at)
		}
		if len(s.in) != n.Op().Arity() {
			return nil, fmt.Errorf("graph: %v has %d inputs, want %d", n, len(s.in), n.Op().Arity())
		}
		s.args = make([]G.Value, len(s.in))
		e.steps = append(e.steps, s)
	}
	e.place(r)
	return e, nil
}

// isAddition reports whether a node is the sum that differentiation makes of the
// gradients of a value with several readers.
func isAddition(n *G.Node) bool {
	if n.Op().Arity() != 2 {
		return false
	}
	g := G.NewGraph()
	x := G.NewTensor(g, G.Float32, 1, G.WithShape(1), G.WithName("x"))
	add := G.Must(G.Add(x, x)).Op()
	return reflect.TypeOf(n.Op()) == reflect.TypeOf(add) && n.Op().String() == add.String()
}

// place gives memory to the values of placed ops. A value lives from its step to
// the last one that reads it; then others take its place, so that a chain of
// convolutions needs one gradient and not one for each.
func (e *executor) place(r *runtime) {
	last := map[int]int{} // value → the last step that reads it
	for i, s := range e.steps {
		if _, ok := s.op.(*part); ok {
			continue // it reads nothing
		}
		for _, in := range s.in {
			last[in] = i
		}
	}
	lives := map[int][]float32{} // of placed ops, with all of their memory
	var free [][]float32
	for i, s := range e.steps {
		if op, ok := s.op.(placed); ok {
			if n, over := op.memory(); n > 0 {
				var m []float32
				if over >= 0 && last[s.in[over]] == i && len(lives[s.in[over]]) >= n {
					m = lives[s.in[over]]
					delete(lives, s.in[over])
				} else {
					m, free = smallest(free, n)
				}
				if m == nil {
					m = r.arena.Floats(n)
				}
				lives[s.out] = m
				op.place(m[:n])
			}
		}
		for _, in := range s.in {
			if m, ok := lives[in]; ok && last[in] == i {
				free = append(free, m)
				delete(lives, in)
			}
		}
	}
}

// smallest takes the smallest of at least n floats from the list; nil if there
// is none.
func smallest(free [][]float32, n int) ([]float32, [][]float32) {
	best := -1
	for i, m := range free {
		if len(m) >= n && (best < 0 || len(m) < len(free[best])) {
			best = i
		}
	}
	if best < 0 {
		return nil, free
	}
	m := free[best]
	free[best] = free[len(free)-1]
	return m, free[:len(free)-1]
}

func (e *executor) run() error {
	for i := range e.steps {
		s := &e.steps[i]
		for j, at := range s.in {
			s.args[j] = e.values[at]
		}
		v, err := s.op.Do(s.args...)
		if err != nil {
			return fmt.Errorf("%v: %w", s.node.Op(), err)
		}
		e.values[s.out] = v
	}
	return nil
}

var (
	_ placed = (*convGrad)(nil)
	_ placed = (*addGrad)(nil)
	_ placed = (*maxPoolGrad)(nil)
	_ placed = (*sum)(nil)
)
