package dataset

import (
	"context"
	"io"
)

// Small returns the format of a set with fewer records in each file, so that
// tests need not write 180 MB.
func Small(name string, trainRecords, testRecords int) Format {
	f := Format{cifar10}
	if name == cifar100.name {
		f = Format{cifar100}
	}
	f.trainRecords, f.testRecords = trainRecords, testRecords
	return f
}

// Format opens the unexported format to the tests.
type Format struct{ format }

func (f Format) Open(ctx context.Context, o Options) (*Set, error) {
	o.Name = f.name
	return openCIFAR(ctx, f.format, o)
}

func (f Format) Get(ctx context.Context, o GetOptions) error { return f.get(ctx, o) }

func (f Format) Folder() string       { return f.folder }
func (f Format) RecordBytes() int     { return f.recordBytes() }
func (f Format) LabelCounts() []int   { return f.labels }
func (f Format) TrainFiles() []string { return f.train }

func (f Format) ReadRecords(r io.Reader, records int) (Split, error) {
	var s Split
	err := f.readRecords(context.Background(), r, "some.bin", records, &s)
	return s, err
}

func (f Format) Unpack(archive io.Reader, dir string) error {
	return f.unpack(context.Background(), archive, dir)
}

// ParseContentRange opens parseContentRange to the tests.
var ParseContentRange = parseContentRange
