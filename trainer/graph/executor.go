package graph

import (
	"fmt"

	G "gorgonia.org/gorgonia"
)

// executor runs a Gorgonia expression graph on the caller's goroutine; the
// package comment says why it stands in for the TapeMachine.
type executor struct {
	steps  []step
	values []G.Value // of every node
}

type step struct {
	node *G.Node
	in   []int     // indices into values
	args []G.Value // reused
	out  int
}

// newExecutor plans the nodes that the roots need, in dependency order.
func newExecutor(g *G.ExprGraph, roots ...*G.Node) (*executor, error) {
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
		if n.Op() == nil || n.Op().Arity() == 0 { // an input, or a constant
			e.values[out] = n.Value()
			continue
		}
		s := step{node: n, out: out}
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
	return e, nil
}

func (e *executor) run() error {
	for i := range e.steps {
		s := &e.steps[i]
		for j, at := range s.in {
			s.args[j] = e.values[at]
		}
		v, err := s.node.Op().Do(s.args...)
		if err != nil {
			return fmt.Errorf("%v: %w", s.node.Op(), err)
		}
		e.values[s.out] = v
	}
	return nil
}
