"use strict";
// A page of tables and figures alone.

prepareTables();
preparePrint();
followWidth(() => [...document.querySelectorAll(".chart")]);
drawFigures(byId("data") ? JSON.parse(byId("data").textContent).charts : {});
drawings.started = true;
