package trainer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"igcsearch/search"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/interchange"
	"igcsearch/trainer/kernel"
)

// Weights returns the network of a job with the parameters and statistics in its checkpoint, job.From, by which the
// accuracy of its epoch was measured, in the order of the layers. It needs no pictures, so it says nothing about them
// but their size.
func Weights(job search.Job) (m interchange.Model, err error) {
	where := func(err error) error {
		return fmt.Errorf("checkpoint of %v seed %d after epoch %d: %w",
			job.System.Label(), job.Seed, job.From.Epoch, err)
	}
	classes, err := classesOf(job.From.State)
	if err != nil {
		return m, where(err)
	}
	in, _ := job.Study.Shape()
	m.Plan = job.Study.Plan(in, classes)
	if m.Network, err = job.System.Network(m.Plan); err != nil {
		return m, err
	}
	isa, err := kernel.Detect()
	if err != nil {
		return m, err
	}
	o := recipe(job.Study, job.Seed).GraphOptions()
	o.ISA = isa
	// The parameters do not depend on the size of the pictures, and the memory does.
	small := m.Plan
	small.In.H, small.In.W = 32, 32
	net, err := job.System.Network(small)
	if err != nil {
		return m, err
	}
	model, err := graph.New(net, 1, o)
	if err != nil {
		return m, memory(err)
	}
	defer model.Close()
	made, ok := madeBy(job.From.State)
	if !ok {
		return m, where(errors.New("it has another format"))
	}
	if err := decode(tensors(model), header(made, job, job.From.Epoch), job.From.State); err != nil {
		return m, where(err)
	}
	m.Tensors = evaluated(model)
	return m, nil
}

// classesOf is the length of the last layer's bias in a checkpoint.
func classesOf(state []byte) (int, error) {
	name := "fc.bias"
	key := append(binary.LittleEndian.AppendUint32(nil, uint32(len(name))), name...)
	at := bytes.Index(state, key)
	if at < 0 || len(state) < at+len(key)+4 {
		return 0, fmt.Errorf("tensor %s is missing", name)
	}
	n := int(binary.LittleEndian.Uint32(state[at+len(key):]))
	if n < 1 || 4*n > len(state) {
		return 0, fmt.Errorf("tensor %s is cut off", name)
	}
	return n, nil
}
