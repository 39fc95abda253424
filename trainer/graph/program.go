package graph

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"igcsearch/space"
	"igcsearch/trainer/kernel"
)

// Program is one of a model's two graphs as a device other than the CPU takes
// it: what the ops compute, in the order in which the executor runs them.
type Program struct {
	Instructions []Instruction
	// Values are the sizes of the activations and of their gradients; the first
	// one is the pictures.
	Values []space.Shape
}

// Value is an index of Program.Values.
type Value int

const (
	Pictures Value = 0
	None     Value = -1
)

// Instruction is what one op computes: one of the types below, which say it by
// the symbols of the ops of this package. Parameters are known by their names.
type Instruction interface{ instruction() }

// Norm is a batch normalisation. Its parameters are Name.weight and Name.bias,
// its running statistics Name.running_mean and Name.running_var.
type Norm struct {
	Name         string
	C, Positions int     // channels; H·W
	Factor       float64 // running = Factor·running + (1 − Factor)·batch
}

// Conv is a convolution or an IGC block, with the normalisation and ReLU of what
// it reads. Its weights are Name.weight, or Name.primary.weight and
// Name.secondary.weight.
type Conv struct {
	Name string
	kernel.Geometry
	Branches int // kernels whose sum is the primary's
	X        Value
	In       *Norm // of X, which has a ReLU then
	// Rectified is set for a ReLU of X without a Norm. X is read as it is where
	// it has neither.
	Rectified bool
	Z         Value
	Out       *Norm // of Z, by whoever reads it; nil: none
}

// ConvGrad computes the gradients of a Conv's weights, and GX, that of what it
// reads: of the ReLU's output, masked by it, with the gradients of In's
// parameters; None for the pictures.
type ConvGrad struct {
	Of *Conv
	G  Value // the same of Z's reader; of Z itself where there is no Out
	GX Value
}

// Add is Out = max(0, normalised Z + X), X normalised by XNorm, as it is, or None.
type Add struct {
	Name  string
	Z     Value
	ZNorm *Norm
	X     Value
	XNorm *Norm
	Out   Value
}

// AddGrad computes GX, the gradient of both terms, from that of Out.
type AddGrad struct {
	Of    *Add
	G, GX Value
}

// MaxPool is the largest of 3×3 positions, two apart, of normalised Z's ReLU.
type MaxPool struct {
	Name string
	Z    Value
	Norm *Norm
	Out  Value
}

// MaxPoolGrad is to MaxPool what ConvGrad is to Conv.
type MaxPoolGrad struct {
	Of    *MaxPool
	G, GX Value
}

// Pool is the mean over all positions of normalised Z's ReLU, or of Z where Norm
// is nil. With Linear and CrossEntropy, of which there is one each, it is the
// network's end.
type Pool struct {
	Z    Value
	Norm *Norm
}

// PoolGrad computes GX, the gradient of Pool's Z as ConvGrad's.
type PoolGrad struct {
	Of *Pool
	GX Value
}

// Linear makes the logits of what Pool made, by Name.weight and Name.bias.
type Linear struct {
	Name       string
	C, Classes int
}

// CrossEntropy is the loss of the logits, and in training their gradient.
type CrossEntropy struct{}

// LinearGrad computes the gradients of Linear's weights and of what it reads.
type LinearGrad struct{ Of *Linear }

// Sum is To = A + B: a value with two readers has two gradients.
type Sum struct{ A, B, To Value }

func (*Conv) instruction()         {}
func (*ConvGrad) instruction()     {}
func (*Add) instruction()          {}
func (*AddGrad) instruction()      {}
func (*MaxPool) instruction()      {}
func (*MaxPoolGrad) instruction()  {}
func (*Pool) instruction()         {}
func (*PoolGrad) instruction()     {}
func (*Linear) instruction()       {}
func (*LinearGrad) instruction()   {}
func (*CrossEntropy) instruction() {}
func (*Sum) instruction()          {}

// Program returns the training graph, or that of evaluation.
func (m *Model) Program(training bool) (Program, error) {
	h := &m.eval
	if training {
		h = &m.train
	}
	r := recorder{m: m, half: h, values: map[int]Value{}, norms: map[*norm]*Norm{}, of: map[any]Instruction{}}
	r.program.Values = []space.Shape{m.Net.Input()}
	for i, n := range h.exec.nodes {
		if n.Name() == inputName {
			r.values[i] = Pictures
		}
	}
	for _, s := range h.exec.steps {
		if err := r.record(s); err != nil {
			return Program{}, err
		}
	}
	return r.program, nil
}

// recorder writes a Program down.
type recorder struct {
	m       *Model
	half    *half
	program Program
	values  map[int]Value // by the executor's index
	norms   map[*norm]*Norm
	of      map[any]Instruction // of an op, for its gradient
}

// value gives the result of a step a number.
func (r *recorder) value(s step, shape tensor.Shape) Value {
	v := Value(len(r.program.Values))
	r.program.Values = append(r.program.Values, space.Shape{H: shape[1], C: shape[2], W: shape[3]})
	r.values[s.out] = v
	return v
}

func (r *recorder) norm(n *norm) *Norm {
	if n == nil {
		return nil
	}
	if r.norms[n] == nil {
		r.norms[n] = &Norm{Name: n.name, C: n.c, Positions: n.positions, Factor: n.factor}
	}
	return r.norms[n]
}

func (r *recorder) record(s step) error {
	in := func(i int) Value { return r.values[s.in[i]] }
	last := len(s.in) - 1
	var made Instruction
	switch op := s.op.(type) {
	case *conv:
		made = &Conv{Name: op.name, Geometry: op.geo, Branches: op.branches, X: in(0), In: r.norm(op.x.norm), Rectified: op.x.rectified, Z: r.value(s, op.out), Out: r.norm(op.outNorm)}
	case *convGrad:
		g := &ConvGrad{Of: r.of[op.of].(*Conv), G: in(last), GX: None}
		if !op.of.x.pictures {
			g.GX = r.value(s, op.of.in[0])
		}
		made = g
	case *add:
		a := &Add{Name: op.name, Z: in(0), ZNorm: r.norm(op.z.norm), X: None, XNorm: r.norm(op.x.norm), Out: r.value(s, op.out)}
		if op.twoArgs {
			a.X = in(3)
		}
		made = a
	case *addGrad:
		made = &AddGrad{Of: r.of[op.of].(*Add), G: in(last), GX: r.value(s, op.out)}
	case *maxPool:
		made = &MaxPool{Name: op.name, Z: in(0), Norm: r.norm(op.z.norm), Out: r.value(s, op.out)}
	case *maxPoolGrad:
		made = &MaxPoolGrad{Of: r.of[op.of].(*MaxPool), G: in(last), GX: r.value(s, op.out)}
	case *pool:
		p := &Pool{Z: in(0)}
		if !op.plain {
			p.Norm = r.norm(op.inNorm)
		}
		made = p
	case *poolGrad:
		made = &PoolGrad{Of: r.of[op.of].(*Pool), GX: r.value(s, op.of.in[0])}
	case *linear:
		made = &Linear{Name: op.name, C: op.h.C, Classes: op.h.K}
	case *linearGrad:
		made = &LinearGrad{Of: r.of[op.of].(*Linear)}
	case *crossEntropy:
		made = &CrossEntropy{}
	case *sum:
		a, b := in(0), in(1)
		made = &Sum{A: a, B: b, To: r.value(s, tensor.Shape(s.node.Shape()))}
	case *part:
		return nil // the op that it is a part of has said it
	default:
		return fmt.Errorf("graph: %v is not for other devices", G.Op(s.node.Op()))
	}
	r.of[s.op] = made
	r.program.Instructions = append(r.program.Instructions, made)
	return nil
}
