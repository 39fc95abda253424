package interchange

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"unsafe"

	"github.com/sbinet/npyio/npz"
)

// WriteNPZ writes the tensors as the arrays of an npz file, for numpy.load. One more array, "about", holds About as a
// JSON object: the bytes of the text in UTF-8, as uint8, which all readers of npz files know.
func (m Model) WriteNPZ(w io.Writer) error {
	out := npz.NewWriter(w)
	for _, t := range m.Tensors {
		if err := out.Write(t.Name+".npy", Array(t.Data, t.Shape...)); err != nil {
			return err
		}
	}
	text, err := json.Marshal(m.About()) // keys are sorted: the same bytes each time
	if err != nil {
		return err
	}
	if err := out.Write("about.npy", text); err != nil {
		return err
	}
	return out.Close()
}

// Array is data as a pointer to a Go array of the given shape: npyio takes the dimensions from the type. It panics if
// the shape has another number of values.
func Array(data []float32, shape ...int) any {
	t := reflect.TypeFor[float32]()
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		t = reflect.ArrayOf(shape[i], t)
		n *= shape[i]
	}
	if n != len(data) {
		panic(fmt.Sprintf("interchange: %d values of shape %v", len(data), shape))
	}
	return reflect.NewAt(t, unsafe.Pointer(unsafe.SliceData(data))).Interface()
}

// WriteSafetensors writes the tensors in the format safetensors, version 1: the length of the header as uint64, a header
// in JSON that names type, shape and place of each tensor, and the values, all little-endian
// (https://github.com/huggingface/safetensors). About is the header's __metadata__.
func (m Model) WriteSafetensors(w io.Writer) error {
	type place struct {
		Type    string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"` // bytes, from the end of the header
	}
	header := map[string]any{"__metadata__": m.About()}
	var data []byte
	for _, t := range m.Tensors {
		from := len(data)
		data = appendFloats(data, t.Data)
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

// appendFloats appends values, little-endian.
func appendFloats(to []byte, values []float32) []byte {
	for _, v := range values {
		to = binary.LittleEndian.AppendUint32(to, math.Float32bits(v))
	}
	return to
}
