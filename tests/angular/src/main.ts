import { bootstrapApplication } from '@angular/platform-browser';
import { AppComponent } from './app/app.component';
import { Score } from './app/score';

// A route of the application: who opens it gets index.html.
const component = location.pathname === '/module' ? Score : AppComponent;
bootstrapApplication(component).catch((error) => console.error(error));
