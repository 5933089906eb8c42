import json
import threading
import unittest
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import main


class TestFunction(unittest.TestCase):
    def setUp(self):
        self.server = main.server("127.0.0.1", 0)
        self.addCleanup(self.server.server_close)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.shutdown)

    def post(self, body):
        port = self.server.server_address[1]
        request = Request(f"http://127.0.0.1:{port}/", data=body)
        with urlopen(request, timeout=10) as response:
            return json.load(response)

    def test_whom_the_payload_names_is_greeted(self):
        self.assertEqual(self.post(b'"Ada"'), {"hello": "Ada"})

    def test_a_payload_that_is_no_json_is_refused(self):
        with self.assertRaises(HTTPError) as refused:
            self.post(b"{")
        self.addCleanup(refused.exception.close)
        self.assertEqual(refused.exception.code, 400)


if __name__ == "__main__":
    unittest.main()
