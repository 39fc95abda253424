package trainer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/sbinet/npyio/npz"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// Tensor is one array of a trained network, with the name and the shape that
// PyTorch's state_dict gives it; Data is row-major.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// Weights returns the parameters and statistics in the checkpoint of a job,
// job.From, by which the accuracy of its epoch was measured, in the order of the
// layers. It needs no pictures.
func Weights(job search.Job) ([]Tensor, error) {
	where := func(err error) error {
		return fmt.Errorf("checkpoint of %v seed %d after epoch %d: %w",
			job.System.Label(), job.Seed, job.From.Epoch, err)
	}
	classes, err := classesOf(job.From.State)
	if err != nil {
		return nil, where(err)
	}
	// The parameters do not depend on the size of the pictures.
	net, err := job.System.Network(job.Study.Plan(space.Shape{C: 3, H: 32, W: 32}, classes))
	if err != nil {
		return nil, err
	}
	isa, err := kernel.Detect()
	if err != nil {
		return nil, err
	}
	o := recipe(job.Study, job.Seed).GraphOptions()
	o.ISA = isa
	m, err := graph.New(net, 1, o)
	if err != nil {
		return nil, memory(err)
	}
	defer m.Close()
	made, ok := madeBy(job.From.State)
	if !ok {
		return nil, where(errors.New("it has another format"))
	}
	if err := decode(tensors(m), header(made, job, job.From.Epoch), job.From.State); err != nil {
		return nil, where(err)
	}
	return evaluated(m), nil
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

// WriteNPZ writes tensors as the arrays of an npz file, for numpy.load.
func WriteNPZ(w io.Writer, list []Tensor) error {
	out := npz.NewWriter(w)
	for _, t := range list {
		if err := out.Write(t.Name+".npy", array(t.Data, t.Shape...)); err != nil {
			return err
		}
	}
	return out.Close()
}

// WriteSafetensors writes tensors in the format safetensors, version 1: the
// length of the header as uint64, a header in JSON that names type, shape and
// place of each tensor, and the values, all little-endian
// (https://github.com/huggingface/safetensors). about becomes the header's
// __metadata__.
func WriteSafetensors(w io.Writer, list []Tensor, about map[string]string) error {
	type place struct {
		Type    string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"` // bytes, from the end of the header
	}
	header := map[string]any{"__metadata__": about}
	var data []byte
	for _, t := range list {
		from := len(data)
		for _, v := range t.Data {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
		header[t.Name] = place{"F32", t.Shape, [2]int{from, len(data)}}
	}
	text, err := json.Marshal(header) // keys are sorted: the same bytes each time
	if err != nil {
		return err
	}
	for len(text)%8 != 0 { // so that the values are aligned in a mapped file
		text = append(text, ' ')
	}
	for _, b := range [][]byte{binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text, data} {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}
