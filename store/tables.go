package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// ownTables are what schema.sql creates, as SQLite lists it.
var ownTables = sync.OnceValues(func() (map[string]string, error) {
	pool, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	var tables map[string]string
	err = transact(context.Background(), pool, func(tx *sql.Tx) error {
		if err := exec(context.Background(), tx, schema); err != nil {
			return err
		}
		tables, err = listTables(context.Background(), tx)
		return err
	})
	return tables, err
})

var commentOrSpace = regexp.MustCompile(`(--[^\n]*|\s)+`)

// listTables returns the SQL of everything that the schema of a database has, by kind and name. What SQLite makes for
// itself is left out, and so are the comments, because they mean nothing.
func listTables(ctx context.Context, tx *sql.Tx) (map[string]string, error) {
	tables := map[string]string{}
	err := each(ctx, tx, `SELECT type || ' ' || name, coalesce(sql, '')
		FROM sqlite_schema WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\'`, nil, func(rows *sql.Rows) error {
		var name, text string
		err := rows.Scan(&name, &text)
		tables[name] = commentOrSpace.ReplaceAllString(text, " ")
		return err
	})
	return tables, err
}

// alteration says how the tables of a database differ from those of schema.sql, "" if they do not. A view in place of a
// table could let a query run for ever, and a trigger could change what is stored.
func alteration(ctx context.Context, tx *sql.Tx) (string, error) {
	own, err := ownTables()
	if err != nil {
		return "", err
	}
	there, err := listTables(ctx, tx)
	if err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		switch text, ok := there[name]; {
		case !ok:
			return fmt.Sprintf("its %s is missing", name), nil
		case text != own[name]:
			return fmt.Sprintf("its %s was changed", name), nil
		}
	}
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if _, ok := own[name]; !ok {
			return fmt.Sprintf("it has the %s that igcsearch did not make", strings.ToValidUTF8(name, "\uFFFD")), nil
		}
	}
	return "", nil
}
