package graph

import (
	"fmt"
	"math"
	"reflect"

	G "gorgonia.org/gorgonia"
)

// executor computes the roots of a graph.
type executor interface {
	// run computes them once, from the inputs as they are.
	run() error
	// bytes is how much run reads and writes of activations and their
	// gradients, each counted once for every op that needs it.
	bytes() int
}

// Executor chooses what executes a model's graphs. The choice changes no bit of a
// result.
type Executor int

const (
	Walk Executor = iota // our own walk over the nodes
	Tape                 // Gorgonia's TapeMachine
)

// newExecutor returns the chosen executor for the nodes that the roots need.
func newExecutor(kind Executor, r *runtime, g *G.ExprGraph, roots ...*G.Node) (executor, error) {
	w, err := newWalk(kind, r, g, roots)
	if err != nil {
		return nil, err
	}
	if kind == Tape {
		return newTape(w, g, roots)
	}
	return w, nil
}

// walk runs a graph on the caller's goroutine. The package comment says why it
// is the usual choice.
type walk struct {
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

// placed is an op whose result goes into memory that the executor gives it: the
// gradient of an activation.
type placed interface {
	// memory returns how many floats the result has, and the index of the input
	// that it may overwrite, −1 for none.
	memory() (floats, over int)
	place([]float32)
}

// newWalk puts the nodes that the roots need into dependency order and plans the
// memory of their values.
func newWalk(kind Executor, r *runtime, g *G.ExprGraph, roots G.Nodes) (*walk, error) {
	g = g.ExactSubgraphRoots(roots...)
	sorted, err := G.Sort(g)
	if err != nil {
		return nil, fmt.Errorf("sort the graph: %w", err)
	}
	w := &walk{values: make([]G.Value, len(sorted))}
	index := make(map[int64]int, len(sorted))
	for i := len(sorted) - 1; i >= 0; i-- { // Sort puts the roots first
		n := sorted[i]
		out := len(index)
		index[n.ID()] = out
		w.nodes = append(w.nodes, n)
		if n.Op() == nil || n.Op().Arity() == 0 { // an input, or a constant
			w.values[out] = n.Value()
			continue
		}
		s := step{node: n, op: n.Op(), out: out}
		if kind == Walk && isAddition(n) {
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
		w.steps = append(w.steps, s)
	}
	w.place(r, kind == Walk)
	return w, nil
}

// isAddition reports whether a node is a sum that differentiation makes: of the
// gradients of a value that several ops read.
func isAddition(n *G.Node) bool {
	if n.Op().Arity() != 2 {
		return false
	}
	g := G.NewGraph()
	x := G.NewTensor(g, G.Float32, 1, G.WithShape(1), G.WithName("x"))
	add := G.Must(G.Add(x, x)).Op()
	return reflect.TypeOf(n.Op()) == reflect.TypeOf(add) && n.Op().String() == add.String()
}

// place gives memory to the results of placed ops. A result lives from its step
// to the last one that reads it. If they share, others then take its place, so
// that a chain of convolutions needs one gradient and not one for each.
func (w *walk) place(r *runtime, share bool) {
	last := map[int]int{} // value → the last step that reads it
	for i, s := range w.steps {
		last[s.out] = i
		if _, ok := s.op.(*part); ok {
			continue // it reads nothing
		}
		for _, in := range s.in {
			last[in] = i
		}
	}
	spans := map[int]*Span{} // value → its memory
	var all []*Span
	for i, s := range w.steps {
		op, ok := s.op.(placed)
		if !ok {
			continue
		}
		floats, over := op.memory()
		if floats == 0 {
			continue
		}
		var span *Span
		if share && over >= 0 && last[s.in[over]] == i {
			span = spans[s.in[over]]
		}
		if span == nil || span.Bytes < 4*floats {
			span = &Span{Bytes: 4 * floats, First: i}
			all = append(all, span)
		}
		spans[s.out] = span
		span.Last = last[s.out]
		if !share {
			span.First, span.Last = 0, math.MaxInt
		}
	}
	memory := r.arena.Floats(Arrange(all, 64) / 4)
	for _, s := range w.steps {
		if span := spans[s.out]; span != nil {
			floats, _ := s.op.(placed).memory()
			s.op.(placed).place(memory[span.At/4:][:floats])
		}
	}
}

func (w *walk) run() error {
	for i := range w.steps {
		s := &w.steps[i]
		for j, at := range s.in {
			s.args[j] = w.values[at]
		}
		v, err := s.op.Do(s.args...)
		if err != nil {
			return fmt.Errorf("%v: %w", s.node.Op(), err)
		}
		w.values[s.out] = v
	}
	return nil
}

func (w *walk) bytes() int {
	n := 0
	for _, s := range w.steps {
		if op, ok := s.op.(mover); ok {
			n += op.bytes()
		}
	}
	return n
}

// tape runs a graph on Gorgonia's TapeMachine. Every gradient has memory of its
// own there: the machine's additions write to places that we do not know.
type tape struct {
	*walk
	machine G.VM
}

func newTape(w *walk, g *G.ExprGraph, roots G.Nodes) (*tape, error) {
	var inputs G.Nodes
	for _, n := range w.nodes {
		if n.IsVar() {
			inputs = append(inputs, n)
		}
	}
	program, places, err := G.CompileFunction(g, inputs, roots)
	if err != nil {
		return nil, fmt.Errorf("compile the graph: %w", err)
	}
	return &tape{w, G.NewTapeMachine(g, G.WithPrecompiled(program, places))}, nil
}

func (t *tape) run() error {
	defer t.machine.Reset()
	return t.machine.RunAll()
}

var (
	_ placed = (*convGrad)(nil)
	_ placed = (*addGrad)(nil)
	_ placed = (*maxPoolGrad)(nil)
	_ placed = (*sum)(nil)
)
