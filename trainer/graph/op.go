package graph

import (
	"fmt"
	"hash"
	"hash/fnv"
	"sync/atomic"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// base has the methods that Gorgonia asks of every op. An op owns the tensor that
// it returns, so that a step allocates nothing.
type base struct {
	name string
	id   uint64
	in   []tensor.Shape // the shapes it accepts, checked when it is applied
	out  tensor.Shape   // empty: a scalar
}

var lastID atomic.Uint64

// newBase gives the op a hash of its own: Gorgonia merges nodes whose ops have
// equal hashes and inputs, and our ops have state.
func newBase(name string, out tensor.Shape, in ...tensor.Shape) base {
	return base{name: name, id: lastID.Add(1), in: in, out: out}
}

// gradBase is the base of the op's gradient, whose inputs are those of the op and
// then in.
func (b *base) gradBase(out tensor.Shape, in ...tensor.Shape) base {
	return newBase(b.name+".grad", out, append(append([]tensor.Shape{}, b.in...), in...)...)
}

func (b *base) Arity() int { return len(b.in) }

func (b *base) Type() hm.Type {
	var types []hm.Type
	for _, s := range append(b.in[:len(b.in):len(b.in)], b.out) {
		if len(s) == 0 {
			types = append(types, tensor.Float32)
		} else {
			types = append(types, G.TensorType{Dims: len(s), Of: tensor.Float32})
		}
	}
	return hm.NewFnType(types...)
}

// InferShape also checks the inputs, which Gorgonia's types do not.
func (b *base) InferShape(in ...G.DimSizer) (tensor.Shape, error) {
	for i, d := range in {
		s, ok := d.(tensor.Shape)
		if !ok || !s.Eq(b.in[i]) {
			return nil, fmt.Errorf("graph: input %d of %s is %v, want %v", i, b.name, d, b.in[i])
		}
	}
	return b.out.Clone(), nil
}

func (b *base) ReturnsPtr() bool      { return true }
func (b *base) CallsExtern() bool     { return false }
func (b *base) OverwritesInput() int  { return -1 }
func (b *base) WriteHash(h hash.Hash) { fmt.Fprint(h, b.String()) }
func (b *base) String() string        { return fmt.Sprintf("%s#%d", b.name, b.id) }
func (b *base) Hashcode() uint32 {
	h := fnv.New32a()
	b.WriteHash(h)
	return h.Sum32()
}

// mover is an op whose tensors are too large for a cache.
type mover interface {
	// bytes that it reads and writes of activations and their gradients, each
	// once.
	bytes() int
}

// part is a result that another op computes beside its own value. Its one input
// is that op's node, so that it comes after it.
type part struct {
	base
	value G.Value
}

func newPart(of *G.Node, name string, value *tensor.Dense) (*G.Node, error) {
	p := &part{newBase(name, value.Shape(), of.Shape()), value}
	return G.ApplyOp(p, of)
}

func (p *part) Do(...G.Value) (G.Value, error) { return p.value, nil }

// f32 is the storage of a value made by dense.
func f32(v G.Value) []float32 { return v.(*tensor.Dense).Float32s() }

// dense is a tensor over memory that lies elsewhere.
func dense(data []float32, shape ...int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
}

var (
	_ G.SDOp = (*conv)(nil)
	_ G.SDOp = (*pool)(nil)
	_ G.SDOp = (*linear)(nil)
	_ G.SDOp = (*crossEntropy)(nil)
)
