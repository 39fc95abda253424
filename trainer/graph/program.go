package graph

import (
	"fmt"
	"slices"

	"igcsearch/space"
	"igcsearch/trainer/kernel"
)

// Program is what a model computes, for devices other than the CPU: one
// instruction for each op. The builder writes it while it builds the graphs.
type Program struct {
	Forward  []Instruction // from the pictures to the loss
	Backward []Instruction // from the loss to the gradients of all parameters
	// Values are the shapes of the activations and of their gradients; the
	// first is that of the pictures.
	Values []space.Shape
}

// Value is an index of Program.Values.
type Value int

const (
	Pictures Value = 0
	None     Value = -1
)

// Instruction is what one op computes: one of the types below, whose fields have
// the symbols that the ops of this package use. Parameters are named.
type Instruction interface{ instruction() }

// Norm is a batch normalisation. Its parameters are Name.weight and Name.bias,
// its running statistics Name.running_mean and Name.running_var.
type Norm struct {
	Name         string
	C, Positions int     // channels; H·W
	Factor       float64 // running = Factor·running + (1 − Factor)·batch
}

// Conv is a convolution or a product of convolutions, with the normalisation and
// ReLU of its input X.
type Conv struct {
	Name    string
	weights []string
	kernel.Geometry
	Branches int // the primary kernel is the sum of so many
	X        Value
	In       *Norm // of X; nil: none
	// Linear says that no ReLU follows In.
	Linear bool
	// Rectified is set for a ReLU of X without a Norm. Without both, X is read
	// as it is.
	Rectified bool
	Z         Value
	Out       *Norm // of Z, applied by the op that reads Z; nil: none
}

// Weights names the weights, as space.Layer.WeightNames does.
func (c *Conv) Weights() []string { return c.weights }

// ConvGrad computes the gradients of a Conv's weights and of its input. GX is
// the gradient of the ReLU's output, masked by the ReLU, and the gradients of
// In's parameters come with it. GX is None where X is the pictures.
type ConvGrad struct {
	Of *Conv
	G  Value // as GX, but of Z; of Z itself where Out is nil
	GX Value
}

// Add is Out = max(0, Z + X), or Z + X if it is Linear, both normalised where they
// have a Norm. X may be None.
type Add struct {
	Name   string
	Z      Value
	ZNorm  *Norm
	X      Value
	XNorm  *Norm
	Linear bool
	Out    Value
}

// AddGrad computes GX, the gradient of both terms, from G, the gradient of Out.
type AddGrad struct {
	Of    *Add
	G, GX Value
}

// MaxPool takes the largest of 3×3 positions, with stride 2, of normalised Z's
// ReLU.
type MaxPool struct {
	Name string
	Z    Value
	Norm *Norm
	Out  Value
}

// MaxPoolGrad is the gradient of MaxPool; G and GX as in ConvGrad.
type MaxPoolGrad struct {
	Of    *MaxPool
	G, GX Value
}

// Pool is the mean over all positions of normalised Z's ReLU, or of Z as it is where
// Norm is nil. Pool, Linear and CrossEntropy are the network's end; there is one of
// each.
type Pool struct {
	Z    Value
	Norm *Norm
}

// PoolGrad computes GX, the gradient of Pool's Z, as in ConvGrad.
type PoolGrad struct {
	Of *Pool
	GX Value
}

// Linear makes the logits from Pool's result, by Name.weight and Name.bias.
type Linear struct {
	Name       string
	C, Classes int
}

// CrossEntropy is the loss of the logits, and in training their gradient.
type CrossEntropy struct{}

// LinearGrad computes the gradients of Linear's weights and of its input.
type LinearGrad struct{ Of *Linear }

// Sum is To = A + B: a value that two instructions read has two gradients.
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

// value adds a value of the given shape.
func (p *Program) value(s space.Shape) Value {
	p.Values = append(p.Values, s)
	return Value(len(p.Values) - 1)
}

// differentiate writes Backward: the gradient of each instruction, the last one
// first, as Gorgonia does with the graph. A test compares the two.
func (p *Program) differentiate() error {
	grads := map[Value]Value{}
	// flow makes a gradient of v, which is added to the one that v has already.
	flow := func(do func(gx Value) Instruction, to ...Value) {
		gx := p.value(p.Values[to[0]])
		p.Backward = append(p.Backward, do(gx))
		for _, v := range to {
			g := gx
			if other, ok := grads[v]; ok {
				g = p.value(p.Values[v])
				p.Backward = append(p.Backward, &Sum{A: other, B: gx, To: g})
			}
			grads[v] = g
		}
	}
	for _, i := range slices.Backward(p.Forward) {
		switch i := i.(type) {
		case *CrossEntropy: // computes its gradient itself
		case *Linear:
			p.Backward = append(p.Backward, &LinearGrad{Of: i})
		case *Pool:
			flow(func(gx Value) Instruction { return &PoolGrad{Of: i, GX: gx} }, i.Z)
		case *MaxPool:
			flow(func(gx Value) Instruction { return &MaxPoolGrad{Of: i, G: grads[i.Out], GX: gx} }, i.Z)
		case *Add:
			to := []Value{i.Z}
			if i.X != None {
				to = append(to, i.X)
			}
			flow(func(gx Value) Instruction { return &AddGrad{Of: i, G: grads[i.Out], GX: gx} }, to...)
		case *Conv:
			if i.X == Pictures {
				p.Backward = append(p.Backward, &ConvGrad{Of: i, G: grads[i.Z], GX: None})
				continue
			}
			flow(func(gx Value) Instruction { return &ConvGrad{Of: i, G: grads[i.Z], GX: gx} }, i.X)
		default:
			return fmt.Errorf("graph: %T has no gradient", i)
		}
	}
	return nil
}
