"use strict";
// A page of tables and pictures alone.

prepareTables();
preparePrint();
