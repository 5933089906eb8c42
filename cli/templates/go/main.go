// The function {{name}}: a payload of "Ada" is answered with {"hello":"Ada"}.
package main

import (
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
)

// answer returns the answer to a payload; both are what JSON can say.
func answer(payload any) any {
	return map[string]any{"hello": payload}
}

func handle(writer http.ResponseWriter, request *http.Request) {
	var payload any
	if err := json.NewDecoder(request.Body).Decode(&payload); err != nil {
		// Any status but 2xx says that the invocation failed.
		reply(writer, http.StatusBadRequest, map[string]any{"error": "the payload is no JSON: " + err.Error()})
		return
	}
	reply(writer, http.StatusOK, answer(payload))
}

func reply(writer http.ResponseWriter, status int, value any) {
	writer.Header().Set("content-type", "application/json")
	writer.WriteHeader(status)
	if err := json.NewEncoder(writer).Encode(value); err != nil {
		log.Printf("cannot answer: %v", err)
	}
}

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	http.HandleFunc("POST /", handle)
	log.Fatal(http.ListenAndServe(net.JoinHostPort(os.Getenv("HOST"), port), nil))
}
