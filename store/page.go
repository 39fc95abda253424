package store

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// filePage is the page of the table file, which is the first table of schema.sql. In a database that people have put
// together again from its parts it may be another one.
const filePage = 2

var (
	errNotOurs  = errors.New("it does not begin as a database of igcsearch does")
	errNoTables = errors.New("it has no tables")
	errPage     = errors.New("the page of its row is no such page")
)

// mainRow reads the row of the table file in the main file alone, without SQLite, for which the main file alone need be
// no database: a checkpoint moves only those pages that no reader needs as they were. The format is that of
// https://www.sqlite.org/fileformat2.html.
func (db *DB) mainRow(number int64) (r fileRow, err error) {
	head := make([]byte, 100)
	if n, _ := db.file.ReadAt(head, 0); n < len(head) || !strings.HasPrefix(string(head), "SQLite format 3\x00") ||
		binary.BigEndian.Uint32(head[68:]) != applicationID {
		return r, errNotOurs
	}
	if binary.BigEndian.Uint32(head[60:]) == 0 { // user_version
		return r, errNoTables
	}
	size := int64(binary.BigEndian.Uint16(head[16:]))
	if size == 1 {
		size = 65536
	}
	page := make([]byte, size)
	if n, _ := db.file.ReadAt(page, (number-1)*size); int64(n) < size {
		return r, errPage
	}
	r, ok := parseFileRow(page)
	if !ok {
		return r, errPage
	}
	r.schema, r.page = int64(binary.BigEndian.Uint32(head[40:])), number
	return r, nil
}

// logBegins is where a -wal begins, told by the salt in its head, which SQLite changes when it begins the -wal anew.
type logBegins struct {
	salt    string
	commits int64 // that the main file had by then, 0 if that is not known
}

// logPlace is where in -wal the row of the table file with some commits was found.
type logPlace struct {
	salt    string
	at      int64 // of the frame
	commits int64
}

// logBegin reads the head of -wal, and with a page also the commits that the main file had when the -wal was begun:
// one less than the first row of the table file in it. SQLite begins a -wal when all of the one before is in the main
// file, and on the disk.
func (db *DB) logBegin(page int64) (b logBegins) {
	db.readLog(func(l *logFile) {
		b.salt = l.salt
		for at := int64(logHead); page != 0; at += l.frame {
			number, ok := l.page(at)
			if !ok {
				return // what follows is of the -wal before
			}
			if number != page {
				continue
			}
			if r, ok := l.row(at); ok {
				b.commits = r.commits - 1
			}
			return
		}
	})
	return b
}

// findCommit looks for the row of the table file with the commits of live in -wal, from a place on where an earlier one
// was.
func (db *DB) findCommit(live fileRow, from logPlace) (place logPlace, found bool) {
	db.readLog(func(l *logFile) {
		at := int64(logHead)
		if from.salt == l.salt {
			at = max(at, from.at)
		}
		for number, ok := l.page(at); ok && !found; number, ok = l.page(at) {
			if number == live.page {
				if r, ok := l.row(at); ok && r.id == live.id && r.commits == live.commits {
					place, found = logPlace{l.salt, at, r.commits}, true
				}
			}
			at += l.frame
		}
	})
	return place, found
}

// logFile is an open -wal.
type logFile struct {
	*os.File
	salt  string
	frame int64 // bytes of a frame: its head and a page
}

const logHead, frameHead = 32, 24 // bytes

// readLog calls read with the -wal, unless it has no head.
func (db *DB) readLog(read func(*logFile)) {
	f, err := os.OpenFile(db.path+"-wal", os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer f.Close()
	head := make([]byte, logHead)
	if n, _ := f.ReadAt(head, 0); n < logHead || binary.BigEndian.Uint32(head)&^1 != 0x377f0682 {
		return
	}
	size := int64(binary.BigEndian.Uint32(head[8:]))
	if size < 512 || size > 65536 {
		return
	}
	read(&logFile{f, string(head[16:24]), frameHead + size})
}

// page returns the number of the page in a frame, if it is one of this -wal and not of the one before.
func (l *logFile) page(at int64) (number int64, ok bool) {
	frame := make([]byte, frameHead)
	if n, _ := l.ReadAt(frame, at); n < frameHead || string(frame[8:16]) != l.salt {
		return 0, false
	}
	return int64(binary.BigEndian.Uint32(frame)), true
}

// row reads the page in a frame as that of the table file.
func (l *logFile) row(at int64) (r fileRow, ok bool) {
	content := make([]byte, l.frame-frameHead)
	l.ReadAt(content, at+frameHead)
	return parseFileRow(content)
}

// parseFileRow reads a page of a table with one row, which fits into the page.
func parseFileRow(page []byte) (r fileRow, ok bool) {
	const leaf = 13
	if len(page) < 10 || page[0] != leaf || binary.BigEndian.Uint16(page[3:]) != 1 {
		return r, false
	}
	cell := cursor{page, int(binary.BigEndian.Uint16(page[8:])), true}
	cell.varint() // bytes of the record
	cell.varint() // rowid
	header := cell
	cell.at += int(header.varint())
	var ints []int64
	for column := range 4 {
		switch kind := header.varint(); {
		case column == 1 && kind == 12+2*16:
			r.id = strings.ToUpper(hex.EncodeToString(cell.bytes(16)))
		case column != 1 && kind == 0: // the column one is the rowid and stored as NULL
			ints = append(ints, 0)
		case column > 1 && (kind >= 1 && kind <= 6 || kind == 8 || kind == 9):
			ints = append(ints, cell.integer(kind))
		default:
			return r, false
		}
	}
	if !cell.ok || !header.ok || len(ints) != 3 {
		return r, false
	}
	r.commits, r.closed = ints[1], ints[2]
	return r, true
}

// cursor reads a page from a position on. It is not ok any more after a position beyond the page.
type cursor struct {
	page []byte
	at   int
	ok   bool
}

func (c *cursor) bytes(n int) []byte {
	if c.at < 0 || c.at+n > len(c.page) {
		c.ok = false
		return make([]byte, n)
	}
	c.at += n
	return c.page[c.at-n : c.at]
}

// varint reads a number of 7 bits a byte. Those of a page have three bytes at most.
func (c *cursor) varint() (x int64) {
	for range 3 {
		b := c.bytes(1)[0]
		x = x<<7 | int64(b&0x7f)
		if b < 0x80 {
			return x
		}
	}
	c.ok = false
	return x
}

// integer reads a whole number of one of SQLite's kinds.
func (c *cursor) integer(kind int64) (x int64) {
	if kind >= 8 {
		return kind - 8
	}
	b := c.bytes([]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}[kind])
	x = int64(int8(b[0])) // the sign
	for _, one := range b[1:] {
		x = x<<8 | int64(one)
	}
	return x
}
