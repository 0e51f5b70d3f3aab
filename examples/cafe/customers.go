package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
)

// Customer is an entry of the customer database.
type Customer struct {
	ID   string
	Card string
	Milk string // the kind they want
}

const customers = 50

// customerDB is the customer database: a process of its own with its own file.
type customerDB struct{ byID map[string]Customer }

// openCustomers reads the file, which is written first if there is none.
func openCustomers(path string) (*customerDB, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = json.Marshal(regulars()); err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
	}
	if err != nil {
		return nil, err
	}
	db := &customerDB{}
	return db, json.Unmarshal(data, &db.byID)
}

// regulars are those who come every day.
func regulars() map[string]Customer {
	all := map[string]Customer{}
	for i := range customers {
		c := Customer{ID: customerID(i), Card: fmt.Sprintf("card-%04d", 1000+37*i), Milk: []string{"whole", "oat", "soy"}[i%3]}
		all[c.ID] = c
	}
	return all
}

func (db *customerDB) find(id string) (int, Customer) {
	c, ok := db.byID[id]
	if !ok {
		return http.StatusNotFound, c
	}
	return http.StatusOK, c
}

func (db *customerDB) routes(mux *http.ServeMux) { answer(mux, "POST /find", db.find) }
